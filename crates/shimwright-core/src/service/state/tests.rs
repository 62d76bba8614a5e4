//! What is allowed in each state, and in which order events follow each other whatever happens.

use super::*;

fn process() -> ProcessId {
    ProcessId::of(rustix::process::getpid()).unwrap()
}

fn exited() -> Exited {
    Exited {
        status: Status::from_code(3),
        at: SystemTime::UNIX_EPOCH,
    }
}

fn task() -> Name {
    Name::task("c")
}

fn exec() -> Name {
    Name::exec("c", "e")
}

/// The states of a task.
fn all() -> [State; 6] {
    let process = process();
    [
        State::Creating,
        State::Created { process },
        State::Running { process },
        State::Pausing { process },
        State::Paused { process },
        State::Stopped {
            process: Some(process),
            exited: exited(),
        },
    ]
}

#[test]
fn each_call_is_allowed_in_its_states_only() {
    let of = task();
    let table = all().map(|state| {
        (
            state.name(&of),
            state.startable(&of).is_ok(),
            state.killable(&of).is_ok(),
            state.deletable(&of).is_ok(),
            state.updatable(&of).is_ok(),
            state.resumable(&of).is_ok(),
            state.joinable(&of).is_ok(),
        )
    });
    let expected = [
        ("being created", false, false, false, false, false, false),
        ("created", true, true, true, true, false, true),
        ("running", false, true, false, true, false, true),
        ("being paused", false, true, false, true, false, false),
        ("paused", false, true, false, true, true, false),
        ("stopped", false, false, true, false, false, false),
    ];
    assert_eq!(table, expected);
}

#[test]
fn each_call_is_allowed_in_an_execs_states_only() {
    let of = exec();
    let process = process();
    let table = [
        State::Added,
        State::Creating,
        State::Running { process },
        State::Stopped {
            process: Some(process),
            exited: exited(),
        },
    ]
    .map(|mut state| {
        (
            state.name(&of),
            state.killable(&of).is_ok(),
            state.deletable(&of).is_ok(),
            state.creating(&of).is_ok(),
        )
    });
    let expected = [
        ("added", false, true, true),
        ("being started", false, false, false),
        ("running", true, false, false),
        ("stopped", false, true, false),
    ];
    assert_eq!(table, expected);
}

#[test]
fn an_exec_that_could_not_be_started_has_ended_without_a_process() {
    let mut state = State::Added;
    state.creating(&exec()).unwrap();
    assert_eq!(state.stopped(&exec(), exited()).unwrap(), None);
    assert_eq!((state.process(), state.exited()), (None, Some(exited())));
    assert!(matches!(state.killable(&exec()), Err(Error::Finished)));
    state.deletable(&exec()).unwrap();
}

#[test]
fn only_a_running_task_is_paused_and_only_while_nothing_interferes() {
    let of = task();
    let outcomes = all().map(|mut state| (state.pausing(&of).is_ok(), state.paused(&of).is_ok()));
    let expected = [
        (false, false),
        (false, false),
        (true, true),
        (false, true),
        (false, false),
        (false, false),
    ];
    assert_eq!(outcomes, expected);
    let process = process();
    let mut killed = State::Pausing { process };
    assert!(killed.thawed());
    assert_eq!(killed, State::Running { process });
    let error = killed.paused(&of).unwrap_err();
    assert_eq!(error.to_string(), "cannot pause a task that is running");
}

#[test]
fn thawing_concerns_what_is_frozen() {
    let thawed = all().map(|mut state| state.thawed());
    assert_eq!(thawed, [false, false, false, true, true, false]);
}

#[test]
fn an_exit_is_told_once_and_in_any_state_with_a_process() {
    let told = all().map(|mut state| state.stopped(&task(), exited()).unwrap().is_some());
    assert_eq!(told, [false, true, true, true, true, false]);
}

#[test]
fn a_refusal_names_the_call_and_the_state() {
    let process = process();
    let error = State::Running { process }.startable(&task()).unwrap_err();
    assert_eq!(error.to_string(), "cannot start a task that is running");
    let error = State::Creating.killable(&exec()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot kill an exec that is being started"
    );
    assert!(matches!(all()[5].killable(&task()), Err(Error::Finished)));
}

#[test]
fn a_task_that_was_never_started_is_killed_to_be_deleted() {
    assert_eq!(all()[1].deletable(&task()).unwrap(), Deletable::AfterKill);
    assert_eq!(all()[5].deletable(&task()).unwrap(), Deletable::Now);
}

/// Something that may happen to a process at any time.
type Step = fn(&mut State, &Name) -> Transition;

/// Follows every sequence of steps, and calls `check` with the topics of the events of each.
fn follow(
    state: State,
    of: &Name,
    (steps, left): (&[Step], usize),
    told: &mut Vec<&'static str>,
    check: &mut impl FnMut(&[&'static str]),
) {
    check(told);
    if left == 0 {
        return;
    }
    for step in steps {
        let mut next = state;
        let Ok(event) = step(&mut next, of) else {
            continue;
        };
        let topic = event.map(|event| event.topic());
        told.extend(topic);
        follow(next, of, (steps, left - 1), told, check);
        told.truncate(told.len() - usize::from(topic.is_some()));
    }
}

/// Where a topic first is in what was told.
fn place(told: &[&str], topic: &str) -> Option<usize> {
    told.iter().position(|told| *told == topic)
}

#[test]
fn whatever_happens_to_a_task_its_events_are_in_order() {
    let steps: [Step; 8] = [
        |state, of| state.created(of, process(), &CreateTaskRequest::default()),
        |state, of| state.started(of),
        |state, of| state.pausing(of),
        |state, of| state.paused(of),
        |state, of| state.resumed(of),
        |state, _| {
            state.thawed();
            Ok(None)
        },
        |state, of| state.stopped(of, exited()),
        |state, of| state.deleted(of),
    ];
    let mut complete = 0;
    let mut check = |told: &[&str]| {
        assert_eq!(place(told, "/tasks/create").unwrap_or(0), 0, "{told:?}");
        for topic in ["/tasks/create", "/tasks/start", "/tasks/exit"] {
            let times = told.iter().filter(|told| **told == topic).count();
            assert!(times <= 1, "{told:?}");
        }
        let exit = place(told, "/tasks/exit").unwrap_or(told.len());
        let after = &told[(exit + 1).min(told.len())..];
        assert!(
            after.iter().all(|topic| *topic == "/tasks/delete"),
            "{told:?}"
        );
        assert!(place(told, "/tasks/delete").is_none_or(|delete| delete > exit));
        assert!(place(told, "/tasks/start").is_none_or(|start| start < exit));
        complete += u32::from(!after.is_empty());
    };
    follow(
        State::Creating,
        &task(),
        (&steps, 8),
        &mut Vec::new(),
        &mut check,
    );
    assert!(complete > 0);
}

#[test]
fn whatever_happens_to_an_exec_its_exit_follows_its_start() {
    let steps: [Step; 3] = [
        |state, of| state.creating(of),
        |state, of| state.joined(of, process()),
        |state, of| state.stopped(of, exited()),
    ];
    let mut seen = std::collections::BTreeSet::new();
    let mut check = |told: &[&'static str]| {
        seen.insert(told.to_vec());
    };
    follow(
        State::Added,
        &exec(),
        (&steps, 6),
        &mut Vec::new(),
        &mut check,
    );
    let (started, exit) = ("/tasks/exec-started", "/tasks/exit");
    let expected = [vec![], vec![started], vec![started, exit]];
    assert_eq!(seen, expected.into());
}
