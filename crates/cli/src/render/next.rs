//! The lines to type next, each with a shell comment that says what it does, so that a whole line can be pasted.

/// Remarks do not stand below each other beyond this many characters: a URL can be very long.
const WIDTH_MAX: usize = 80;

/// What a line does.
fn remark(line: &str) -> Option<&'static str> {
    let remarks = [
        ("pgmend pause ", "stop after the batch that is under way; it can be resumed"),
        ("pgmend run ", "go on from the last committed batch"),
        ("pgmend resume ", "lift the pause and go on"),
        ("pgmend undo ", "put every row back that nobody changed since"),
        ("pgmend report ", "the paper trail, as Markdown"),
        ("pgmend status ", "where it is"),
    ];
    remarks.into_iter().find(|(command, _)| line.starts_with(command)).map(|(_, remark)| remark)
}

/// The lines, with remarks where they have none.
pub fn remarked(lines: &[String]) -> Vec<String> {
    aligned(lines.iter().map(|line| (line.clone(), remark(line).filter(|_| !line.contains("  # ")))).collect())
}

/// Lines and remarks, the remarks below each other.
pub fn aligned(lines: Vec<(String, Option<&str>)>) -> Vec<String> {
    let lengths = lines.iter().filter(|(_, r)| r.is_some()).map(|(line, _)| line.chars().count());
    let width = lengths.filter(|length| *length <= WIDTH_MAX).max().unwrap_or(0);
    let line = |(line, remark): (String, Option<&str>)| match remark {
        Some(remark) => format!("{line:<width$}  # {remark}"),
        None => line,
    };
    lines.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::remarked;

    #[test]
    fn remarks_stand_below_each_other_and_none_is_said_twice() {
        let lines = ["psql -c 'select 1'  # asks", "pgmend undo fix --execute", "pgmend report fix"].map(str::to_owned);
        assert_eq!(
            remarked(&lines),
            [
                "psql -c 'select 1'  # asks",
                "pgmend undo fix --execute  # put every row back that nobody changed since",
                "pgmend report fix          # the paper trail, as Markdown"
            ]
        );
    }
}
