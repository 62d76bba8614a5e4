//! One row as a plot: a bar for each engine, with the quartiles, as SVG without fonts and colours of
//! its own. Classes say what has which colour, so that the page can be light or dark.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use shimwright_benches::Result;

use crate::measure::{Measured, Row};
use crate::number::short;

/// Marks of the drawing that become classes of the page.
const CLASSES: [(RGBColor, &str); 4] = [
    (RGBColor(1, 1, 1), "text"),
    (RGBColor(2, 2, 2), "grid"),
    (RGBColor(3, 3, 3), "bar"),
    (RGBColor(4, 4, 4), "best"),
];

/// Values that differ by more than this are drawn on a logarithmic scale.
const LOGARITHMIC: f64 = 20.0;

const WIDTH: u32 = 420;
const BAR_HEIGHT: u32 = 34;
/// Of the axis, its numbers, and what it is of.
const AXIS_HEIGHT: u32 = 48;
/// A number is so many pixels beside its bar.
const BESIDE: (i32, i32) = (6, 0);
const FONT: (&str, u32) = ("sans-serif", 13);

/// Where values are on the axis.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    /// Begins at this power of ten.
    Logarithmic(f64),
}

impl Scale {
    fn of(values: &[f64]) -> Self {
        let least = values
            .iter()
            .copied()
            .filter(|value| *value > 0.0)
            .reduce(f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        match least {
            // Nothing has no place on a logarithmic scale.
            Some(least) if most / least > LOGARITHMIC && !values.contains(&0.0) => {
                Self::Logarithmic((least * 0.8).log10().floor())
            }
            _ => Self::Linear,
        }
    }

    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic(begin) => (value.log10() - begin).max(0.0),
        }
    }

    /// What is written at a place of the axis.
    fn label(self, place: f64) -> String {
        match self {
            Self::Linear => short((place * 1e6).round() / 1e6),
            Self::Logarithmic(begin) if place.fract() == 0.0 => short(10_f64.powf(begin + place)),
            Self::Logarithmic(_) => String::new(),
        }
    }
}

/// The plot of a row for these engines.
pub(crate) fn svg(
    row: &Row,
    engines: &[&str],
    found: &[Option<Measured>],
    best: Option<f64>,
) -> Result<String> {
    let [text, grid, bar, best_bar] = CLASSES.map(|(colour, _)| colour);
    let medians: Vec<f64> = found.iter().flatten().map(|found| found.median).collect();
    let scale = Scale::of(&medians);
    let ends = found
        .iter()
        .flatten()
        .map(|found| scale.place(found.median.max(found.q3)));
    // With room for the number beside the longest bar.
    let end = ends.fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.3;
    let end = if medians.iter().all(|median| *median == 0.0) {
        1.0
    } else {
        end
    };
    let count = engines.len();
    let height = BAR_HEIGHT * u32::try_from(count)? + AXIS_HEIGHT;
    let mut drawn = String::new();
    {
        let root = SVGBackend::with_string(&mut drawn, (WIDTH, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .x_label_area_size(AXIS_HEIGHT)
            .y_label_area_size(78)
            .margin_right(18)
            .build_cartesian_2d(0.0..end, (0..count - 1).into_segmented())?;
        let unit = match scale {
            Scale::Linear => row.unit.to_owned(),
            Scale::Logarithmic(_) => format!("{}, logarithmic", row.unit),
        };
        // The first engine is at the top.
        let place = |index: usize| count - 1 - index;
        let name = |segment: &SegmentValue<usize>| match segment {
            SegmentValue::CenterOf(index) if *index < count => engines[place(*index)].to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(grid)
            .axis_style(grid)
            .label_style(FONT.into_font().color(&text))
            .x_labels(5)
            .x_label_formatter(&|x| scale.label(*x))
            .y_labels(count)
            .y_label_formatter(&name)
            .x_desc(unit)
            .draw()?;
        for (index, found) in found.iter().enumerate() {
            let at = place(index);
            let middle = SegmentValue::CenterOf(at);
            let Some(found) = found else {
                let style = FONT
                    .into_font()
                    .color(&text)
                    .pos(Pos::new(HPos::Left, VPos::Center));
                let beside = EmptyElement::at((0.0, middle)) + Text::new("no value", BESIDE, style);
                chart.draw_series([beside])?;
                continue;
            };
            let colour = if best == Some(found.median) {
                best_bar
            } else {
                bar
            };
            let [low, median, high] = [found.q1, found.median, found.q3].map(|x| scale.place(x));
            let corners = [
                (0.0, SegmentValue::Exact(at)),
                (median, SegmentValue::Exact(at + 1)),
            ];
            let mut rectangle = Rectangle::new(corners, colour.filled());
            rectangle.set_margin(7, 7, 0, 0);
            chart.draw_series([rectangle])?;
            if high > low {
                let whisker = vec![(low, middle.clone()), (high, middle.clone())];
                chart.draw_series([PathElement::new(whisker, text.stroke_width(2))])?;
            }
            let style = FONT
                .into_font()
                .color(&text)
                .pos(Pos::new(HPos::Left, VPos::Center));
            let label = Text::new(short(found.median), BESIDE, style);
            chart.draw_series([EmptyElement::at((median.max(high), middle)) + label])?;
        }
        root.present()?;
    }
    Ok(with_classes(drawn))
}

/// Replaces the marks by classes.
fn with_classes(mut svg: String) -> String {
    for (RGBColor(red, green, blue), class) in CLASSES {
        let colour = format!("#{red:02X}{green:02X}{blue:02X}");
        svg = svg.replace(&format!("fill=\"{colour}\""), &format!("class=\"{class}\""));
        svg = svg.replace(
            &format!("stroke=\"{colour}\""),
            &format!("class=\"{class}-line\""),
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn values_that_differ_much_are_on_a_logarithmic_scale() {
        assert_eq!(Scale::of(&[10.0, 190.0]), Scale::Linear);
        assert_eq!(Scale::of(&[0.0, 190.0, 1.0]), Scale::Linear);
        let scale = Scale::of(&[10.0, 250.0]);
        assert_eq!(scale, Scale::Logarithmic(0.0));
        assert_eq!(scale.place(100.0), 2.0);
        assert_eq!(
            (scale.label(2.0), scale.label(0.5)),
            ("100".to_owned(), String::new())
        );
    }

    #[test]
    fn a_plot_has_a_bar_for_each_value_and_no_colour() {
        let report = sample();
        let found: Vec<_> = report.measured(0).collect();
        let svg = svg(&report.rows[0], &["one", "two", "three"], &found, Some(8.0)).unwrap();
        for (class, number) in [("\"best\"", 1), ("\"bar\"", 1)] {
            assert_eq!(svg.matches(class).count(), number, "{svg}");
        }
        assert!(svg.contains("no value") && svg.contains("three"), "{svg}");
        assert!(svg.contains("logarithmic"), "{svg}");
        assert!(!svg.contains("=\"#0"), "{svg}");
    }
}
