//! The picture of a node, `docs/node.svg`, drawn from what is below, and nothing else.

use std::fmt::Write;

use shimwright_testenv::error::Result;

use super::tree::Tree;

const FILE: &str = "docs/node.svg";
const WIDTH: u32 = 900;
const HEIGHT: u32 = 490;

/// A box with a title and lines of text.
struct Part {
    at: (u32, u32),
    size: (u32, u32),
    look: Look,
    title: &'static str,
    text: &'static [&'static str],
}

/// What a part is, by its colour.
#[derive(Clone, Copy)]
enum Look {
    /// The node, or a pod on it.
    Frame,
    /// A program of others.
    Other,
    /// A process of the shim.
    Ours,
    /// A WebAssembly container.
    Guest,
    /// A Linux container.
    Linux,
    /// Files.
    Files,
}

impl Look {
    /// The colours of the inside and of the line.
    fn colours(self) -> (&'static str, &'static str) {
        match self {
            Self::Frame => ("none", "#8a8f98"),
            Self::Other => ("#eceff3", "#5b6470"),
            Self::Ours => ("#dce9ff", "#2458b3"),
            Self::Guest => ("#e7dcff", "#6b3fc4"),
            Self::Linux => ("#e0f2e2", "#2f7d3a"),
            Self::Files => ("#fff3d6", "#a87400"),
        }
    }
}

struct Arrow {
    from: (u32, u32),
    to: (u32, u32),
    label: &'static str,
    /// Where the label begins.
    at: (u32, u32),
}

const fn part(
    at: (u32, u32),
    size: (u32, u32),
    look: Look,
    title: &'static str,
    text: &'static [&'static str],
) -> Part {
    Part {
        at,
        size,
        look,
        title,
        text,
    }
}

const PARTS: [Part; 14] = [
    part((10, 10), (880, 470), Look::Frame, "node", &[]),
    part(
        (30, 45),
        (150, 50),
        Look::Other,
        "kubelet",
        &["or Docker, nerdctl, ctr"],
    ),
    part((260, 45), (150, 50), Look::Other, "containerd", &[]),
    part((30, 150), (510, 300), Look::Frame, "pod", &[]),
    part(
        (50, 185),
        (210, 62),
        Look::Ours,
        "shim process",
        &["one thread, no engine;", "serves all of the pod"],
    ),
    part(
        (320, 185),
        (200, 62),
        Look::Ours,
        "launcher",
        &["a fork for one create,", "exec or delete"],
    ),
    part(
        (50, 320),
        (140, 100),
        Look::Guest,
        "runner",
        &["engine and guest", "in the sandbox;", "a Wasm container"],
    ),
    part(
        (205, 320),
        (140, 100),
        Look::Guest,
        "runner",
        &["engine and guest", "in the sandbox;", "a Wasm container"],
    ),
    part(
        (360, 320),
        (160, 100),
        Look::Linux,
        "Linux containers",
        &["pause, sidecars:", "programs of an image"],
    ),
    part((570, 150), (160, 300), Look::Frame, "another pod", &[]),
    part(
        (585, 185),
        (130, 62),
        Look::Ours,
        "shim process",
        &["of its own"],
    ),
    part(
        (585, 320),
        (130, 100),
        Look::Guest,
        "runner",
        &["engine and guest"],
    ),
    part(
        (750, 150),
        (125, 97),
        Look::Ours,
        "compiler",
        &[
            "in a jail; only",
            "for a program that",
            "is not in the cache",
        ],
    ),
    part(
        (750, 320),
        (125, 100),
        Look::Files,
        "cache",
        &["native code,", "mapped by all", "runners, shared"],
    ),
];

const ARROWS: [Arrow; 9] = [
    arrow((180, 70), (260, 70), "CRI", (208, 63)),
    arrow((335, 95), (155, 185), "Task API", (180, 135)),
    arrow((370, 95), (650, 185), "Task API", (540, 135)),
    arrow((260, 216), (320, 216), "fork", (278, 209)),
    arrow((400, 247), (130, 320), "makes", (205, 275)),
    arrow((410, 247), (275, 320), "", (0, 0)),
    arrow((430, 247), (440, 320), "", (0, 0)),
    arrow((650, 247), (650, 320), "", (0, 0)),
    arrow((812, 247), (812, 320), "fills", (818, 290)),
];

const fn arrow(from: (u32, u32), to: (u32, u32), label: &'static str, at: (u32, u32)) -> Arrow {
    Arrow {
        from,
        to,
        label,
        at,
    }
}

pub(super) fn check(tree: &Tree) -> Vec<String> {
    if tree.text(FILE) == draw() {
        return Vec::new();
    }
    vec![format!(
        "{FILE} is not what `cargo xtask tidy --update` draws"
    )]
}

pub(super) fn write(tree: &Tree) -> Result<()> {
    tree.write(FILE, &draw())
}

fn draw() -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>A node with Shimwright: kubelet, containerd, a shim process for each pod, and its \
         containers</title>\n\
         <defs><marker id=\"end\" markerWidth=\"9\" markerHeight=\"8\" refX=\"8\" refY=\"4\" \
         orient=\"auto\"><path d=\"M0 0L9 4L0 8z\" fill=\"#5b6470\"/></marker></defs>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    for part in &PARTS {
        draw_part(&mut svg, part);
    }
    for arrow in &ARROWS {
        draw_arrow(&mut svg, arrow);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_part(svg: &mut String, part: &Part) {
    let ((x, y), (width, height)) = (part.at, part.size);
    let (fill, stroke) = part.look.colours();
    let dashes = match part.look {
        Look::Frame => " stroke-dasharray=\"5 4\"",
        _ => "",
    };
    line(
        svg,
        format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{fill}\" \
         stroke=\"{stroke}\"{dashes}/>"
        ),
    );
    // The title of a frame is where no arrow enters it.
    let top = match part.look {
        Look::Frame => y + height - 10,
        _ => y + 20,
    };
    let left = x + 10;
    let title = part.title;
    line(
        svg,
        format_args!(
            "<text x=\"{left}\" y=\"{top}\" font-weight=\"bold\" fill=\"{stroke}\">{title}</text>"
        ),
    );
    for (row, text) in (1u32..).zip(part.text) {
        let below = top + 18 * row;
        line(
            svg,
            format_args!("<text x=\"{left}\" y=\"{below}\" font-size=\"12\">{text}</text>"),
        );
    }
}

fn draw_arrow(svg: &mut String, arrow: &Arrow) {
    let ((x1, y1), (x2, y2), (x, y)) = (arrow.from, arrow.to, arrow.at);
    line(
        svg,
        format_args!(
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#5b6470\" \
         marker-end=\"url(#end)\"/>"
        ),
    );
    if !arrow.label.is_empty() {
        let label = arrow.label;
        line(
            svg,
            format_args!("<text x=\"{x}\" y=\"{y}\" font-size=\"12\">{label}</text>"),
        );
    }
}

fn line(svg: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{element}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn a_picture_that_was_changed_by_hand_is_found() {
        let (_kept, tree) = tree::of(&[("docs/x", "")]);
        write(&tree).unwrap();
        assert_eq!(check(&tree), [""; 0]);
        tree.write(FILE, &draw().replace("kubelet", "somebody"))
            .unwrap();
        assert_eq!(check(&tree).len(), 1);
    }

    #[test]
    fn parts_are_inside_the_picture() {
        for Part { at, size, .. } in &PARTS {
            assert!(at.0 + size.0 <= WIDTH && at.1 + size.1 <= HEIGHT);
        }
    }
}
