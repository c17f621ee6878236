//! `pgmend explain [CODE]`: the pages of docs/errors, compiled in.

use pgmend::Code;
use pgmend_core::exit;
use pgmend_core::job::distance;

use crate::Done;
use crate::args::Explain;
use crate::failure::Failure;
use crate::shell::Shell;

macro_rules! pages {
    ($($code:literal)+) => {
        /// Code and page.
        const PAGES: &[(&str, &str)] = &[$(
            ($code, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/", $code, ".md"))),
        )+];
    };
}

pages! {
    "PM101" "PM102" "PM103" "PM104" "PM105" "PM106" "PM107" "PM108" "PM109" "PM110"
    "PM201" "PM202" "PM203" "PM204" "PM205" "PM206" "PM207" "PM208" "PM209"
    "PM301" "PM302" "PM303" "PM304" "PM305" "PM306" "PM307" "PM308" "PM310"
    "PM401" "PM402" "PM403" "PM404"
    "PM501" "PM502" "PM503" "PM504" "PM505" "PM506" "PM507" "PM508" "PM509" "PM510" "PM511" "PM512" "PM513"
    "PM533" "PM534"
    "PM601" "PM602" "PM603" "PM604" "PM605" "PM606" "PM607" "PM608"
    "PM701"
    "PM711" "PM712" "PM713"
    "PM721" "PM722" "PM723" "PM724"
    "PM731" "PM732"
    "PM741" "PM742" "PM743" "PM744" "PM745" "PM746"
    "PM751" "PM752" "PM753" "PM754" "PM755" "PM756"
    "PM761" "PM765" "PM766" "PM780" "PM781" "PM790"
    "corrupt"
}

/// Prints a page, or the list of codes.
pub fn main(shell: &Shell, args: &Explain) -> Done {
    match &args.code {
        None => {
            let codes: Vec<_> = Code::ALL
                .iter()
                .map(|code| serde_json::json!({ "code": code.as_str(), "title": code.title() }))
                .collect();
            shell.show(&codes, |_| index())?;
        }
        Some(wanted) => {
            let (code, page) = page(wanted).ok_or_else(|| unknown(wanted))?;
            let title = Code::find(code).map(Code::title);
            shell.show(&serde_json::json!({ "code": code, "title": title, "page": page }), |_| page.to_owned())?;
        }
    }
    Ok(exit::DONE)
}

fn page(wanted: &str) -> Option<(&'static str, &'static str)> {
    PAGES.iter().copied().find(|(code, _)| code.eq_ignore_ascii_case(wanted.trim()))
}

fn index() -> String {
    let lines: Vec<String> = Code::ALL.iter().map(|code| format!("{code}  {}\n", code.title())).collect();
    format!("{}\npgmend explain CODE prints the page of a code\n", lines.concat())
}

fn unknown(wanted: &str) -> Failure {
    let near = PAGES.iter().map(|(code, _)| *code).min_by_key(|code| distance(&wanted.to_uppercase(), code));
    let near = near.filter(|code| distance(&wanted.to_uppercase(), code) <= 2);
    let help = near.map_or_else(
        || "`pgmend explain` lists all codes".to_owned(),
        |code| format!("did you mean {code}? `pgmend explain` lists all codes"),
    );
    Failure::usage(format!("there is no code `{wanted}`"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_names_it_and_shows_the_way_out() {
        for code in Code::ALL {
            let (_, page) = page(code.as_str()).unwrap_or_else(|| unreachable!("{code} has no page"));
            assert!(
                page.starts_with(&format!("# {code}: {}\n", code.title())),
                "{code}: {}",
                page.lines().next().unwrap_or("")
            );
            assert!(page.contains("\n## What to do\n"), "{code} does not say what to do");
            assert!((14..=45).contains(&page.lines().count()), "{code} has {} lines", page.lines().count());
        }
    }

    #[test]
    fn every_page_belongs_to_a_code() {
        for (code, _) in PAGES {
            assert!(*code == "corrupt" || Code::find(code).is_some(), "{code}");
        }
    }

    #[test]
    fn the_index_links_every_page() {
        let index = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/README.md"));
        for (code, _) in PAGES {
            assert!(index.contains(&format!("({code}.md)")), "{code} is not in the index");
        }
    }

    #[test]
    fn a_mistyped_code_is_answered_with_the_nearest() {
        assert!(unknown("pm24").help().is_some_and(|help| help.contains("did you mean PM2")));
        assert!(unknown("nonsense").help().is_some_and(|help| !help.contains("did you mean")));
    }
}
