//! Signals, which end a runner although it is its container's first process.

use shimwright_guests as guest;

use super::run;
use crate::case::{Case, Run, SIGINT, SIGTERM};

pub(super) const CASES: &[Case] = &[
    run(
        "sigterm_ends_an_idle_guest",
        "SIGTERM ends a guest that waits in a call of the host, with status 143",
        Run::guest(guest::IDLE).stdout("ready\n").ended_by(SIGTERM),
    ),
    run(
        "sigterm_ends_a_busy_guest",
        "SIGTERM ends a guest that never calls the host, with status 143",
        Run::guest(guest::SPIN)
            .stdout("spinning\n")
            .ended_by(SIGTERM),
    ),
    run(
        "sigint_ends_a_busy_guest",
        "SIGINT does so with status 130",
        Run::guest(guest::SPIN)
            .stdout("spinning\n")
            .ended_by(SIGINT),
    ),
    run(
        "component_sigterm_ends_an_idle_guest",
        "As `sigterm_ends_an_idle_guest`, for a component",
        Run::guest(guest::IDLE_COMPONENT)
            .stdout("ready\n")
            .ended_by(SIGTERM),
    ),
    run(
        "precompiled_sigterm_ends_a_busy_guest",
        "As `sigterm_ends_a_busy_guest`, for native code",
        Run::guest(guest::SPIN)
            .precompiled()
            .stdout("spinning\n")
            .ended_by(SIGTERM),
    ),
];
