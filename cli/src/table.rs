//! Plain tables: columns, two spaces between them, no lines.

use crate::words::plain;
use comfy_table::{Table, presets::NOTHING};

/// A table with `header`; each row has as many cells.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(header.map(str::to_uppercase));
    for row in rows {
        table.add_row(row.map(|cell| {
            if cell.is_empty() {
                "-".to_string()
            } else {
                plain(&cell)
            }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|l| l.trim_end().to_string())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names and values, one a line.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:<width$}  {}", plain(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_cells_show() {
        let text = table(
            ["name", "slot"],
            [
                ["a-long-name".to_string(), "a".into()],
                ["n".into(), String::new()],
            ],
        );
        assert_eq!(text, "NAME         SLOT\na-long-name  a\nn            -");
        assert_eq!(
            fields(&[("a", "1".into()), ("bcd", "2".into()), ("e", String::new())]),
            "a    1\nbcd  2"
        );
        let steering = "x\n\x1b[A".to_string();
        assert_eq!(table(["a"], [[steering.clone()]]), "A\nx\u{fffd}\u{fffd}[A");
        assert_eq!(fields(&[("a", steering)]), "a  x\u{fffd}\u{fffd}[A");
    }
}
