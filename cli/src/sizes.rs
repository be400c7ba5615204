//! What takes how much in an image, as a tree on the terminal.

use holdfast_image::report::{Part, SizeReport};

/// Parts below this share of the whole are told together.
const SMALL: u64 = 400;
/// So many parts of one are told one by one.
const MANY: usize = 12;

/// The report as text: the image's parts, then the root by folder.
pub fn text(report: &SizeReport) -> String {
    let mut rows = Vec::new();
    for top in [&report.image, &report.folders] {
        tree(top, "", "", top.packed / SMALL, &mut rows);
        rows.push([String::new(), String::new(), String::new()]);
    }
    rows.pop();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let (name, packed, bytes) = (width(0), width(1).max(8), width(2).max(8));
    let head = format!(
        "{:<name$}  {:>packed$}  {:>bytes$}",
        "", "IN IMAGE", "IN USE"
    );
    let lines = rows.iter().map(|[n, p, b]| {
        format!("{n:<name$}  {p:>packed$}  {b:>bytes$}")
            .trim_end()
            .to_owned()
    });
    std::iter::once(head)
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}

/// `lead`: what stands before the part's own name; `below`: before its parts' names.
fn tree(part: &Part, lead: &str, below: &str, small: u64, rows: &mut Vec<[String; 3]>) {
    rows.push([
        format!("{lead}{}", part.name),
        size(part.packed),
        size(part.bytes),
    ]);
    let shown = part
        .parts
        .iter()
        .take(MANY)
        .take_while(|p| p.packed >= small)
        .count();
    // One alone is told itself.
    let shown = match part.parts.len() - shown {
        1 if part.parts[shown].packed > 0 => shown + 1,
        _ => shown,
    };
    let (first, rest) = part.parts.split_at(shown);
    let others = (!rest.is_empty()).then(|| {
        let mut others = Part::of(format!("{} more", rest.len()), rest.to_vec());
        others.parts.clear();
        others
    });
    let all: Vec<&Part> = first.iter().chain(&others).collect();
    for (n, one) in all.iter().enumerate() {
        let (branch, line) = match n + 1 == all.len() {
            true => ("└ ", "  "),
            false => ("├ ", "│ "),
        };
        let (lead, deeper) = (format!("{below}{branch}"), format!("{below}{line}"));
        tree(one, &lead, &deeper, small, rows);
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..100_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_shows_the_large_and_sums_the_small() {
        let small = (0..5).map(|n| Part::leaf(format!("p{n}"), 10, 10));
        let root = Part::of(
            "root",
            std::iter::once(Part::leaf("libc6", 2_000_000, 900_000))
                .chain(small)
                .collect(),
        );
        let report = SizeReport {
            board: "b".into(),
            recipe: "r".into(),
            image: Part::of("image", vec![root, Part::leaf("loader", 50_000, 50_000)]),
            folders: Part::leaf("/", 0, 0),
        };
        let text = text(&report);
        let expected = [
            "            IN IMAGE    IN USE",
            "image         1.0 MB    2.1 MB",
            "├ root        0.9 MB    2.0 MB",
            "│ ├ libc6     0.9 MB    2.0 MB",
            "│ └ 5 more      50 B      50 B",
            "└ loader     50.0 kB   50.0 kB",
            "",
            "/                0 B       0 B",
        ]
        .join("\n");
        assert_eq!(text, expected, "\n{text}");
    }
}
