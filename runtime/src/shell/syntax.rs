//! Texts become programs, and never more than the stack holds: the parser calls itself for what stands inside of something
//! else, and so does whatever copies or drops what it has read.

use super::{NESTING_LIMIT, depth, parser_options};
use brush_parser::ast::{
    AndOr, AndOrList, Command, CommandPrefixOrSuffixItem, CompoundCommand, CompoundList, ExtendedTestExpr,
    IoFileRedirectTarget, IoRedirect, Pipeline, Program, SimpleCommand,
};
use brush_parser::{ParseError, Parser};
use std::fmt;

/// Why a text is no script.
#[derive(Debug)]
pub(super) enum SyntaxError {
    Parser(ParseError),
    TooDeep,
}

impl SyntaxError {
    /// Whether more lines could make the text right.
    pub(super) fn is_incomplete(&self) -> bool {
        match self {
            SyntaxError::Parser(ParseError::ParsingAtEndOfInput) => true,
            SyntaxError::Parser(ParseError::Tokenizing { inner, .. }) => inner.is_incomplete(),
            SyntaxError::Parser(ParseError::ParsingNear(_)) | SyntaxError::TooDeep => false,
        }
    }
}

/// In the words of busybox.
impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxError::Parser(ParseError::ParsingAtEndOfInput) => f.write_str("syntax error: unexpected end of file"),
            SyntaxError::Parser(ParseError::Tokenizing { .. }) => {
                f.write_str("syntax error: unterminated quoted string")
            }
            SyntaxError::Parser(ParseError::ParsingNear(at)) => {
                write!(f, "line {}: syntax error near column {}", at.line, at.column)
            }
            SyntaxError::TooDeep => write!(f, "syntax error: maximum nesting level exceeded ({NESTING_LIMIT})"),
        }
    }
}

/// Parses a script, whose lists stand at most [`NESTING_LIMIT`] deep in each other.
pub(super) fn parse(text: &str, bash: bool) -> Result<Program, SyntaxError> {
    let parsed = depth::parsing(depth::openings(text), || {
        let program =
            Parser::new(text.as_bytes(), &parser_options(bash)).parse_program().map_err(SyntaxError::Parser)?;
        // What is too deep is dropped here, where there is room for it.
        let levels = program.complete_commands.iter().map(in_list).max().unwrap_or_default();
        if levels > NESTING_LIMIT + 1 { Err(SyntaxError::TooDeep) } else { Ok(program) }
    });
    parsed.unwrap_or(Err(SyntaxError::TooDeep))
}

/// The levels of a list, itself included.
fn in_list(list: &CompoundList) -> usize {
    1 + list.0.iter().map(|item| in_and_or(&item.0)).max().unwrap_or_default()
}

fn in_and_or(list: &AndOrList) -> usize {
    let others = list.additional.iter().map(|(AndOr::And(pipeline) | AndOr::Or(pipeline))| pipeline);
    let in_pipeline = |pipeline: &Pipeline| pipeline.seq.iter().map(in_command).max().unwrap_or_default();
    others.chain([&list.first]).map(in_pipeline).max().unwrap_or_default()
}

fn in_command(command: &Command) -> usize {
    let in_redirects = |redirects: &[IoRedirect]| redirects.iter().map(in_redirect).max().unwrap_or_default();
    match command {
        Command::Simple(simple) => in_simple(simple),
        Command::Compound(compound, redirects) => {
            in_compound(compound).max(redirects.as_ref().map_or(0, |list| in_redirects(&list.0)))
        }
        Command::Function(function) => {
            let redirects = function.body.1.as_ref().map_or(0, |list| in_redirects(&list.0));
            1 + in_compound(&function.body.0).max(redirects)
        }
        Command::ExtendedTest(test, redirects) => {
            in_test(&test.expr).max(redirects.as_ref().map_or(0, |list| in_redirects(&list.0)))
        }
    }
}

fn in_simple(command: &SimpleCommand) -> usize {
    let prefix = command.prefix.iter().flat_map(|prefix| &prefix.0);
    let suffix = command.suffix.iter().flat_map(|suffix| &suffix.0);
    let in_item = |item: &CommandPrefixOrSuffixItem| match item {
        CommandPrefixOrSuffixItem::IoRedirect(redirect) => in_redirect(redirect),
        CommandPrefixOrSuffixItem::ProcessSubstitution(_, inner) => in_list(&inner.list),
        CommandPrefixOrSuffixItem::Word(_) | CommandPrefixOrSuffixItem::AssignmentWord(..) => 0,
    };
    prefix.chain(suffix).map(in_item).max().unwrap_or_default()
}

fn in_redirect(redirect: &IoRedirect) -> usize {
    match redirect {
        IoRedirect::File(_, _, IoFileRedirectTarget::ProcessSubstitution(_, inner)) => in_list(&inner.list),
        _ => 0,
    }
}

fn in_compound(compound: &CompoundCommand) -> usize {
    match compound {
        CompoundCommand::BraceGroup(group) => in_list(&group.list),
        CompoundCommand::Subshell(inner) => in_list(&inner.list),
        CompoundCommand::ForClause(clause) => in_list(&clause.body.list),
        CompoundCommand::ArithmeticForClause(clause) => in_list(&clause.body.list),
        CompoundCommand::WhileClause(clause) | CompoundCommand::UntilClause(clause) => {
            in_list(&clause.0).max(in_list(&clause.1.list))
        }
        CompoundCommand::IfClause(clause) => {
            let others = clause.elses.iter().flatten();
            let others = others.flat_map(|other| other.condition.iter().chain([&other.body]));
            others.chain([&clause.condition, &clause.then]).map(in_list).max().unwrap_or_default()
        }
        CompoundCommand::CaseClause(clause) => {
            clause.cases.iter().filter_map(|case| case.cmd.as_ref()).map(in_list).max().unwrap_or_default()
        }
        CompoundCommand::Coprocess(process) => 1 + in_command(&process.body),
        CompoundCommand::Arithmetic(_) => 0,
    }
}

fn in_test(test: &ExtendedTestExpr) -> usize {
    match test {
        ExtendedTestExpr::And(left, right) | ExtendedTestExpr::Or(left, right) => 1 + in_test(left).max(in_test(right)),
        ExtendedTestExpr::Not(inner) | ExtendedTestExpr::Parenthesized(inner) => 1 + in_test(inner),
        ExtendedTestExpr::UnaryTest(..) | ExtendedTestExpr::BinaryTest(..) => 0,
    }
}
