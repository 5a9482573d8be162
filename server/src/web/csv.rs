//! Tables as CSV ([RFC 4180](https://www.rfc-editor.org/rfc/rfc4180)), for people who open them in a spreadsheet.

/// Says that what follows is UTF-8: without it Excel reads Russian wrongly.
pub const BEGINNING: &str = "\u{feff}";

/// Writes one line at the end of `out`.
pub fn write_line(out: &mut String, cells: impl IntoIterator<Item = String>) {
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_cell(out, &cell);
    }
    out.push_str("\r\n");
}

/// What a spreadsheet would take for a formula gets an apostrophe before it: names in it are given by people outside, and a formula can
/// send what stands beside it away (<https://owasp.org/www-community/attacks/CSV_Injection>).
fn write_cell(out: &mut String, cell: &str) {
    let guard = if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        "'"
    } else {
        ""
    };
    if cell.contains([',', '"', '\r', '\n']) {
        out.push('"');
        out.push_str(guard);
        out.push_str(&cell.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(guard);
        out.push_str(cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cells: &[&str]) -> String {
        let mut out = String::new();
        write_line(&mut out, cells.iter().map(|cell| (*cell).to_owned()));
        out
    }

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        assert_eq!(line(&["a", "", "b c"]), "a,,b c\r\n");
        assert_eq!(
            line(&["a,b", "say \"hi\"", "x\ny"]),
            "\"a,b\",\"say \"\"hi\"\"\",\"x\ny\"\r\n"
        );
    }

    #[test]
    fn no_cell_begins_as_a_formula() {
        for (cell, written) in [
            ("=1+1", "'=1+1"),
            ("+7 900", "'+7 900"),
            ("-2", "'-2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=a,\"b\"", "\"'=a,\"\"b\"\"\""),
            ("a=1", "a=1"),
        ] {
            assert_eq!(line(&[cell]), format!("{written}\r\n"));
        }
    }
}
