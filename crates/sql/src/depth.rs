//! Deep expressions: PostgreSQL's tree is recursive, and so is every step over it. A statement that
//! nests too deep is refused; below that limit, the hungry steps run on a stack of their own.

use pg_query::NodeEnum;
use pg_query::protobuf::{ScanToken, Token};
use pgmend_core::refusal::{Code, Refusal};

use crate::walk::{Visitor, Walk};

/// Levels of nesting that the smallest usual stack (2 MiB, a thread's) carries unoptimised through
/// copying and dropping a tree.
const LEVELS_MAX: usize = 1_000;

/// Operators that a text may hold: each may nest by one level before the tree can be measured.
const OPERATORS_MAX: usize = 20_000;

/// Enough for [`OPERATORS_MAX`] levels of decoding; only what is used is ever backed by memory.
const STACK_BYTES: usize = 512 << 20;

/// Runs one step over trees on a large stack.
pub(crate) fn on_large_stack<T: Send>(step: impl FnOnce() -> Result<T, Refusal> + Send) -> Result<T, Refusal> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, step);
        match worker.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(Refusal::new(
                Code::RoundTrip,
                format!("cannot start a thread to read the statement: {error}"),
                "free some memory or raise the limit of processes, then try again",
            )),
        }
    })
}

/// The refusal.
pub(crate) fn too_deep() -> Refusal {
    Refusal::new(
        Code::Syntax,
        "the statement nests too deep",
        "shorten its longest chain of operators, for example with `= any (array[…])` or `concat(…)`",
    )
}

/// Refuses a text whose tree could be too deep to be decoded at all.
pub(crate) fn check_tokens(tokens: &[ScanToken]) -> Result<(), Refusal> {
    let (mut operators, mut open, mut deepest) = (0usize, 0usize, 0usize);
    for token in tokens {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the grammar's tokens, of which these matter")]
        match token.token() {
            Token::Ascii40 | Token::Ascii91 => open += 1,
            Token::Ascii41 | Token::Ascii93 => open = open.saturating_sub(1),
            Token::Ascii44 | Token::Ident | Token::Sconst | Token::Iconst | Token::Fconst | Token::Ascii46 => {}
            Token::NullP | Token::TrueP | Token::FalseP | Token::Default => {}
            _ => operators += 1,
        }
        deepest = deepest.max(open);
    }
    if operators + deepest > OPERATORS_MAX { Err(too_deep()) } else { Ok(()) }
}

/// Refuses a tree that is too deep to be worked on.
pub(crate) fn check_tree(tree: &mut NodeEnum) -> Result<(), Refusal> {
    let mut depth = Depth { now: 0, deepest: 0 };
    tree.walk(&mut depth);
    if depth.deepest > LEVELS_MAX { Err(too_deep()) } else { Ok(()) }
}

struct Depth {
    now: usize,
    deepest: usize,
}

impl Visitor for Depth {
    fn enter(&mut self, _: &mut NodeEnum) {
        self.now += 1;
        self.deepest = self.deepest.max(self.now);
    }

    fn leave(&mut self, _: &mut NodeEnum) {
        self.now -= 1;
    }
}
