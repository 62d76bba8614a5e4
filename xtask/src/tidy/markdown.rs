//! What the checks of documents read in Markdown: headings, links, paragraphs, code spans, tables.

use std::collections::BTreeMap;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A document, by its parts.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) headings: Vec<Heading>,
    /// The targets of links and pictures.
    pub(super) links: Vec<String>,
    /// Paragraphs and items of lists, as plain text.
    pub(super) paragraphs: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) level: usize,
    pub(super) text: String,
    pub(super) anchor: String,
}

impl Document {
    pub(super) fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut anchors = BTreeMap::new();
        // The text since the last begin of something that is kept.
        let mut kept = String::new();
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.into_string());
                }
                Event::Start(
                    Tag::Heading { .. }
                    | Tag::Paragraph
                    | Tag::Item
                    | Tag::TableRow
                    | Tag::CodeBlock(_),
                ) => kept.clear(),
                Event::Text(text) | Event::Code(text) => kept.push_str(&text),
                Event::SoftBreak | Event::HardBreak => kept.push(' '),
                Event::End(TagEnd::Heading(level)) => {
                    let text = std::mem::take(&mut kept);
                    document.headings.push(Heading {
                        level: number(level),
                        anchor: anchor(&text, &mut anchors),
                        text,
                    });
                }
                Event::End(TagEnd::Paragraph | TagEnd::Item) => {
                    let text = std::mem::take(&mut kept);
                    if !text.is_empty() {
                        document.paragraphs.push(text);
                    }
                }
                _ => {}
            }
        }
        document
    }
}

fn number(level: HeadingLevel) -> usize {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}

/// The anchor of a heading, as GitHub makes it: a repeated one gets a number.
fn anchor(heading: &str, taken: &mut BTreeMap<String, usize>) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
    let times = taken.entry(anchor.clone()).or_default();
    *times += 1;
    match *times {
        1 => anchor,
        times => format!("{anchor}-{}", times - 1),
    }
}

/// The lines outside of code blocks, with their numbers.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((index + 1, line))
    })
}

/// What is between backticks on one line.
pub(super) fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|(_, line)| line.split('`').skip(1).step_by(2))
}

/// The cells of a table's row. A pipe behind a backslash is text.
pub(super) fn cells(row: &str) -> Vec<String> {
    let row = row.trim().replace("\\|", "\u{0}");
    let row = row.strip_prefix('|').unwrap_or(&row);
    let row = row.strip_suffix('|').unwrap_or(row);
    let cells = row
        .split('|')
        .map(|cell| cell.trim().replace('\u{0}', "\\|"));
    cells.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_document_are_found() {
        let text = "# A `b`, c\n\nOne\ntwo [x](y.md#z).\n\n- item\n\n```\n# no\n```\n\n\
                    ## Twice\n## Twice\n\n| h | i |\n| --- | --- |\n| 1 | 2 |\n";
        let document = Document::parse(text);
        let anchors: Vec<_> = document.headings.iter().map(|h| &*h.anchor).collect();
        assert_eq!(anchors, ["a-b-c", "twice", "twice-1"]);
        assert_eq!(document.links, ["y.md#z"]);
        assert_eq!(document.paragraphs, ["One two x.", "item"]);
    }

    #[test]
    fn cells_of_a_row() {
        assert_eq!(cells("| a | `b \\| c` | |"), ["a", "`b \\| c`", ""]);
    }

    #[test]
    fn spans_in_code_blocks_do_not_count() {
        let spans: Vec<_> = code_spans("`a` b `c`\n```\n`d`\n```\n`e`").collect();
        assert_eq!(spans, ["a", "c", "e"]);
    }
}
