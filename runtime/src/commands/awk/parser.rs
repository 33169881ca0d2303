//! The syntax of awk: from words to a [`Program`], with every name resolved to its place.

use super::Fault;
use super::lexer::{Token, tokens};

/// Statements that stand in each other.
const NESTING_LIMIT: usize = 40;
/// Operands of one expression, which may stand in each other.
const OPERAND_LIMIT: usize = 1000;
/// Stack that reading one more operand may need, and what is taken where there is less.
const RED_ZONE_BYTES: usize = 256 << 10;
const SEGMENT_BYTES: usize = 2 << 20;

/// The variables that awk itself looks at, by their places among the global ones.
pub(super) const SPECIAL: [&str; 15] = [
    "NF", "NR", "FNR", "FS", "OFS", "ORS", "RS", "FILENAME", "SUBSEP", "ENVIRON", "CONVFMT", "OFMT", "RSTART",
    "RLENGTH", "ARGC",
];

/// Where a variable is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    Global(usize),
    Local(usize),
}

/// What can be assigned to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    Variable(Place),
    Element(Place, Vec<Expression>),
    Field(Box<Expression>),
}

/// An operator between two values; `^` and its like are the signs themselves.
pub(super) type Sign = &'static str;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Number(f64),
    Text(String),
    Regex(String),
    Read(Target),
    Assign(Target, Box<Expression>),
    /// `target op= value`
    Update(Target, Sign, Box<Expression>),
    /// `++` and `--`: what is added, and whether the value is the one before.
    Step {
        target: Target,
        by: f64,
        before: bool,
    },
    Binary(Sign, Box<Expression>, Box<Expression>),
    Concatenate(Box<Expression>, Box<Expression>),
    Compare(Sign, Box<Expression>, Box<Expression>),
    Match {
        negated: bool,
        text: Box<Expression>,
        pattern: Box<Expression>,
    },
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    /// Unary `-` (true) and `+`.
    Signed(bool, Box<Expression>),
    Choose(Box<Expression>, Box<Expression>, Box<Expression>),
    In(Vec<Expression>, Place),
    /// A function of the program, by its number.
    Call(usize, Vec<Expression>),
    Builtin(&'static str, Vec<Expression>),
    /// `(a, b)`, behind `print` only.
    List(Vec<Expression>),
}

/// A statement and its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub line: usize,
    pub action: Action,
}

/// What a statement does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Evaluate(Expression),
    Print(Vec<Expression>),
    Printf(Vec<Expression>),
    If(Expression, Box<Statement>, Option<Box<Statement>>),
    While(Expression, Box<Statement>),
    DoWhile(Box<Statement>, Expression),
    For(Box<Statement>, Option<Expression>, Box<Statement>, Box<Statement>),
    ForIn(Target, Place, Box<Statement>),
    Block(Vec<Statement>),
    Delete(Place, Option<Vec<Expression>>),
    Next,
    Exit(Option<Expression>),
    Return(Option<Expression>),
    Break,
    Continue,
}

/// When a rule applies.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pattern {
    Begin,
    End,
    Always,
    When(Expression),
    Range(Expression, Expression),
}

/// A pattern and what is done; without that the record is printed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub pattern: Pattern,
    pub body: Option<Statement>,
}

/// A function of the program.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Function {
    pub name: String,
    pub parameters: Vec<String>,
    /// None until its definition is read.
    pub body: Option<Statement>,
}

/// A program.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Program {
    pub rules: Vec<Rule>,
    pub functions: Vec<Function>,
    /// The names of the global variables by place, those of [`SPECIAL`] first.
    pub globals: Vec<String>,
}

/// Reads a program.
pub(super) fn parse(text: &str) -> Result<Program, Fault> {
    let globals = SPECIAL.map(str::to_string).to_vec();
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        program: Program { globals, ..Program::default() },
        parameters: Vec::new(),
        nesting: 0,
        operands: 0,
        plain_greater: true,
        plain_in: true,
    };
    parser.program()?;
    Ok(parser.program)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    program: Program,
    /// Of the function that is being read.
    parameters: Vec<String>,
    nesting: usize,
    operands: usize,
    /// Whether `>` compares; behind `print` it does not.
    plain_greater: bool,
    /// Whether `in` is an operator; at the beginning of `for (` it is not.
    plain_in: bool,
}

type Parsed<T> = Result<T, Fault>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn line(&self) -> usize {
        self.tokens[self.at].1
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Keyword(found) if *found == word)
    }

    fn skip(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.skip(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Fault {
        match self.peek() {
            Token::Sign("|" | ">" | ">>") => self.fault("redirections are not simulated"),
            Token::End => self.fault("Unexpected end of string"),
            _ => Fault::unexpected(self.line()),
        }
    }

    fn fault(&self, message: &str) -> Fault {
        Fault::new(self.line(), message)
    }

    fn newlines(&mut self) {
        while *self.peek() == Token::Newline {
            self.at += 1;
        }
    }

    /// Skips what separates statements.
    fn separators(&mut self) {
        while *self.peek() == Token::Newline || self.is(";") {
            self.at += 1;
        }
    }

    fn program(&mut self) -> Parsed<()> {
        loop {
            self.separators();
            if *self.peek() == Token::End {
                break;
            }
            if self.skip_word("function") || self.skip_word("func") {
                self.function()?;
            } else {
                let rule = self.rule()?;
                self.program.rules.push(rule);
            }
        }
        match self.program.functions.iter().any(|function| function.body.is_none()) {
            true => Err(self.fault("Call to undefined function")),
            false => Ok(()),
        }
    }

    fn rule(&mut self) -> Parsed<Rule> {
        let pattern = if self.skip_word("BEGIN") {
            Pattern::Begin
        } else if self.skip_word("END") {
            Pattern::End
        } else if self.is("{") {
            Pattern::Always
        } else {
            let first = self.expression()?;
            if self.skip(",") {
                self.newlines();
                Pattern::Range(first, self.expression()?)
            } else {
                Pattern::When(first)
            }
        };
        let body = match self.is("{") {
            true => Some(self.block()?),
            false if matches!(pattern, Pattern::Begin | Pattern::End) => return Err(self.unexpected()),
            false if matches!(self.peek(), Token::Newline | Token::End | Token::Sign(";")) => None,
            false => return Err(self.unexpected()),
        };
        Ok(Rule { pattern, body })
    }

    fn function(&mut self) -> Parsed<()> {
        let (Token::Call(name) | Token::Name(name)) = self.take() else { return Err(self.unexpected()) };
        let number = self.function_number(&name);
        if self.program.functions[number].body.is_some() {
            return Err(self.fault("Duplicate function"));
        }
        self.expect("(")?;
        while !self.skip(")") {
            let Token::Name(parameter) = self.peek().clone() else { return Err(self.unexpected()) };
            self.at += 1;
            self.parameters.push(parameter);
            if self.skip(",") {
                self.newlines();
            } else if !self.is(")") {
                return Err(self.unexpected());
            }
        }
        self.newlines();
        let body = self.block()?;
        let function = &mut self.program.functions[number];
        (function.body, function.parameters) = (Some(body), std::mem::take(&mut self.parameters));
        Ok(())
    }

    fn function_number(&mut self, name: &str) -> usize {
        let functions = &mut self.program.functions;
        functions.iter().position(|function| function.name == name).unwrap_or_else(|| {
            functions.push(Function { name: name.to_string(), parameters: Vec::new(), body: None });
            functions.len() - 1
        })
    }

    fn place(&mut self, name: &str) -> Place {
        if let Some(at) = self.parameters.iter().position(|parameter| parameter == name) {
            return Place::Local(at);
        }
        let globals = &mut self.program.globals;
        Place::Global(globals.iter().position(|global| global == name).unwrap_or_else(|| {
            globals.push(name.to_string());
            globals.len() - 1
        }))
    }

    fn name(&mut self) -> Parsed<Place> {
        let Token::Name(name) = self.peek().clone() else { return Err(self.unexpected()) };
        self.at += 1;
        Ok(self.place(&name))
    }

    // --- statements ---

    fn block(&mut self) -> Parsed<Statement> {
        let line = self.line();
        self.expect("{")?;
        let mut statements = Vec::new();
        loop {
            self.separators();
            if self.skip("}") {
                return Ok(Statement { line, action: Action::Block(statements) });
            }
            statements.push(self.statement()?);
        }
    }

    /// A statement with what ends it.
    fn statement(&mut self) -> Parsed<Statement> {
        self.nesting += 1;
        if self.nesting > NESTING_LIMIT {
            return Err(self.fault(&format!("maximum nesting level exceeded ({NESTING_LIMIT})")));
        }
        let statement = stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, || self.any_statement());
        self.nesting -= 1;
        statement
    }

    fn any_statement(&mut self) -> Parsed<Statement> {
        let line = self.line();
        if self.is("{") {
            return self.block();
        }
        if self.skip(";") {
            return Ok(Statement { line, action: Action::Block(Vec::new()) });
        }
        let action = if self.skip_word("if") {
            let condition = self.condition()?;
            let then = Box::new(self.body()?);
            let behind = self.at;
            self.separators();
            let otherwise = if self.skip_word("else") {
                Some(Box::new(self.body()?))
            } else {
                self.at = behind;
                None
            };
            return Ok(Statement { line, action: Action::If(condition, then, otherwise) });
        } else if self.skip_word("while") {
            let condition = self.condition()?;
            let body = Box::new(self.body()?);
            return Ok(Statement { line, action: Action::While(condition, body) });
        } else if self.skip_word("for") {
            let action = self.for_loop(line)?;
            return Ok(Statement { line, action });
        } else if self.skip_word("do") {
            let body = Box::new(self.body()?);
            self.separators();
            if !self.skip_word("while") {
                return Err(self.unexpected());
            }
            Action::DoWhile(body, self.condition()?)
        } else {
            self.simple()?
        };
        self.end()?;
        Ok(Statement { line, action })
    }

    fn end(&mut self) -> Parsed<()> {
        match self.peek() {
            Token::Newline | Token::Sign(";") => self.at += 1,
            Token::Sign("}") | Token::End => {}
            _ => return Err(self.unexpected()),
        }
        Ok(())
    }

    fn body(&mut self) -> Parsed<Statement> {
        self.newlines();
        self.statement()
    }

    /// An expression in brackets.
    fn condition(&mut self) -> Parsed<Expression> {
        self.expect("(")?;
        let condition = self.expression()?;
        self.expect(")")?;
        Ok(condition)
    }

    fn for_loop(&mut self, line: usize) -> Parsed<Action> {
        self.expect("(")?;
        let nothing = || Box::new(Statement { line, action: Action::Block(Vec::new()) });
        let first = if self.is(";") {
            nothing()
        } else {
            self.plain_in = false;
            let action = self.simple();
            self.plain_in = true;
            let action = action?;
            if self.skip_word("in") {
                let Action::Evaluate(Expression::Read(target)) = action else { return Err(self.unexpected()) };
                let array = self.name()?;
                self.expect(")")?;
                return Ok(Action::ForIn(target, array, Box::new(self.body()?)));
            }
            Box::new(Statement { line, action })
        };
        self.expect(";")?;
        self.newlines();
        let condition = if self.is(";") { None } else { Some(self.expression()?) };
        self.expect(";")?;
        self.newlines();
        let step = match self.is(")") {
            true => nothing(),
            false => Box::new(Statement { line, action: self.simple()? }),
        };
        self.expect(")")?;
        Ok(Action::For(first, condition, step, Box::new(self.body()?)))
    }

    /// A statement that has no other in it.
    fn simple(&mut self) -> Parsed<Action> {
        let Token::Keyword(word) = *self.peek() else { return Ok(Action::Evaluate(self.expression()?)) };
        self.at += 1;
        let ends = matches!(self.peek(), Token::Newline | Token::End | Token::Sign(";" | "}"));
        Ok(match word {
            "print" => Action::Print(self.printed()?),
            "printf" => Action::Printf(self.printed()?),
            "next" => Action::Next,
            "break" => Action::Break,
            "continue" => Action::Continue,
            "exit" => Action::Exit(if ends { None } else { Some(self.expression()?) }),
            "return" => Action::Return(if ends { None } else { Some(self.expression()?) }),
            "delete" => {
                let array = self.name()?;
                Action::Delete(array, if self.skip("[") { Some(self.list("]")?) } else { None })
            }
            _ => {
                self.at -= 1;
                return Err(self.unexpected());
            }
        })
    }

    fn printed(&mut self) -> Parsed<Vec<Expression>> {
        if matches!(self.peek(), Token::Newline | Token::End | Token::Sign(";" | "}" | ">" | ">>" | "|")) {
            return Ok(Vec::new());
        }
        self.plain_greater = false;
        let mut found = Vec::new();
        loop {
            found.push(self.expression()?);
            if !self.skip(",") {
                break;
            }
            self.newlines();
        }
        self.plain_greater = true;
        Ok(match found.as_slice() {
            [Expression::List(list)] => list.clone(),
            _ => found,
        })
    }

    // --- expressions ---

    fn expression(&mut self) -> Parsed<Expression> {
        self.operands = 0;
        self.ternary()
    }

    /// Expressions up to a bracket.
    fn list(&mut self, end: &str) -> Parsed<Vec<Expression>> {
        let before = (std::mem::replace(&mut self.plain_greater, true), std::mem::replace(&mut self.plain_in, true));
        let mut found = Vec::new();
        self.newlines();
        while !self.skip(end) {
            found.push(self.ternary()?);
            self.newlines();
            if self.skip(",") {
                self.newlines();
            } else if !self.is(end) {
                return Err(self.unexpected());
            }
        }
        (self.plain_greater, self.plain_in) = before;
        Ok(found)
    }

    fn ternary(&mut self) -> Parsed<Expression> {
        let condition = self.binary(1)?;
        if !self.skip("?") {
            return Ok(condition);
        }
        self.newlines();
        let then = self.ternary()?;
        self.newlines();
        self.expect(":")?;
        self.newlines();
        Ok(Expression::Choose(Box::new(condition), Box::new(then), Box::new(self.ternary()?)))
    }

    /// The operator that comes next, and how tightly it binds.
    fn operator(&self) -> Option<(Sign, u8)> {
        Some(match self.peek() {
            Token::Sign("||") => ("||", 1),
            Token::Sign("&&") => ("&&", 2),
            Token::Keyword("in") if self.plain_in => ("in", 3),
            Token::Sign(sign @ ("~" | "!~")) => (sign, 4),
            Token::Sign(">") if !self.plain_greater => return None,
            Token::Sign(sign @ ("<" | "<=" | "==" | "!=" | ">" | ">=")) => (sign, 5),
            Token::Sign("$" | "(") => ("", 6),
            Token::Number(_) | Token::Text(_) | Token::Regex(_) | Token::Name(_) | Token::Call(_) => ("", 6),
            Token::Builtin(_) | Token::Sign("++" | "--") => ("", 6),
            Token::Sign(sign @ ("+" | "-")) => (sign, 7),
            Token::Sign(sign @ ("*" | "/" | "%")) => (sign, 8),
            _ => return None,
        })
    }

    fn binary(&mut self, least: u8) -> Parsed<Expression> {
        let mut left = self.unary()?;
        while let Some((sign, binds)) = self.operator().filter(|(_, binds)| *binds >= least) {
            self.at += usize::from(!sign.is_empty());
            if sign == "in" {
                let key = if let Expression::List(keys) = left { keys } else { vec![left] };
                left = Expression::In(key, self.name()?);
                continue;
            }
            if matches!(left, Expression::List(_)) {
                return Err(self.unexpected());
            }
            if matches!(sign, "&&" | "||") {
                self.newlines();
            }
            let (first, second) = (Box::new(left), Box::new(self.binary(binds + 1)?));
            left = match sign {
                "||" => Expression::Or(first, second),
                "&&" => Expression::And(first, second),
                "~" | "!~" => Expression::Match { negated: sign == "!~", text: first, pattern: second },
                "" => Expression::Concatenate(first, second),
                _ if binds == 5 => Expression::Compare(sign, first, second),
                _ => Expression::Binary(sign, first, second),
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expression> {
        self.operands += 1;
        if self.operands > OPERAND_LIMIT {
            return Err(self.fault(&format!("expression too large (more than {OPERAND_LIMIT} operands)")));
        }
        stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, || {
            if self.skip("!") {
                return Ok(Expression::Not(Box::new(self.unary()?)));
            }
            let minus = self.is("-");
            if minus || self.is("+") {
                self.at += 1;
                return Ok(Expression::Signed(minus, Box::new(self.unary()?)));
            }
            self.power()
        })
    }

    fn power(&mut self) -> Parsed<Expression> {
        let base = self.postfix()?;
        if let Expression::Read(target) = &base
            && let Token::Sign(sign @ ("=" | "+=" | "-=" | "*=" | "/=" | "%=" | "^=")) = *self.peek()
        {
            self.at += 1;
            self.newlines();
            let (target, value) = (target.clone(), Box::new(self.ternary()?));
            return Ok(match sign {
                "+=" => Expression::Update(target, "+", value),
                "-=" => Expression::Update(target, "-", value),
                "*=" => Expression::Update(target, "*", value),
                "/=" => Expression::Update(target, "/", value),
                "%=" => Expression::Update(target, "%", value),
                "^=" => Expression::Update(target, "^", value),
                _ => Expression::Assign(target, value),
            });
        }
        match self.skip("^") {
            true => Ok(Expression::Binary("^", Box::new(base), Box::new(self.unary()?))),
            false => Ok(base),
        }
    }

    fn postfix(&mut self) -> Parsed<Expression> {
        for (sign, by) in [("++", 1.0), ("--", -1.0)] {
            if self.skip(sign) {
                let Expression::Read(target) = self.primary()? else { return Err(self.unexpected()) };
                return Ok(Expression::Step { target, by, before: false });
            }
        }
        let operand = self.primary()?;
        let Expression::Read(target) = operand else { return Ok(operand) };
        for (sign, by) in [("++", 1.0), ("--", -1.0)] {
            if self.skip(sign) {
                return Ok(Expression::Step { target, by, before: true });
            }
        }
        Ok(Expression::Read(target))
    }

    fn primary(&mut self) -> Parsed<Expression> {
        if self.is("$") {
            self.at += 1;
            return Ok(Expression::Read(Target::Field(Box::new(self.field()?))));
        }
        Ok(match self.peek().clone() {
            Token::Number(number) => self.operand(Expression::Number(number)),
            Token::Text(text) => self.operand(Expression::Text(text)),
            Token::Regex(pattern) => self.operand(Expression::Regex(pattern)),
            Token::Name(name) => {
                self.at += 1;
                let place = self.place(&name);
                let target = match self.skip("[") {
                    true => Target::Element(place, self.list("]")?),
                    false => Target::Variable(place),
                };
                Expression::Read(target)
            }
            Token::Call(name) => {
                self.at += 2;
                let arguments = self.list(")")?;
                Expression::Call(self.function_number(&name), arguments)
            }
            Token::Builtin(name @ ("getline" | "system")) => {
                return Err(self.fault(&format!("{name} is not simulated")));
            }
            Token::Builtin(name) => {
                self.at += 1;
                let arguments = match self.skip("(") {
                    true => self.list(")")?,
                    false if name == "length" => Vec::new(),
                    false => return Err(self.unexpected()),
                };
                let (least, most) = arity(name);
                if arguments.len() < least || arguments.len() > most {
                    return Err(self.fault("Wrong number of arguments"));
                }
                Expression::Builtin(name, arguments)
            }
            Token::Sign("(") => {
                self.at += 1;
                let mut list = self.list(")")?;
                match (list.len(), list.pop()) {
                    // It is not to be assigned to, nor to be taken for a list.
                    (1, Some(inner)) => inner,
                    (2.., Some(last)) => {
                        list.push(last);
                        let lists = self.is_word("in") || !self.plain_greater;
                        if !lists {
                            return Err(self.unexpected());
                        }
                        Expression::List(list)
                    }
                    _ => return Err(self.unexpected()),
                }
            }
            _ => return Err(self.unexpected()),
        })
    }

    fn operand(&mut self, operand: Expression) -> Expression {
        self.at += 1;
        operand
    }

    /// What stands behind `$`: it binds tighter than all else.
    fn field(&mut self) -> Parsed<Expression> {
        self.operands += 1;
        if self.operands > OPERAND_LIMIT {
            return Err(self.fault(&format!("expression too large (more than {OPERAND_LIMIT} operands)")));
        }
        stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, || {
            if self.skip("-") {
                return Ok(Expression::Signed(true, Box::new(self.field()?)));
            }
            if self.is("++") || self.is("--") { self.postfix() } else { self.primary() }
        })
    }
}

/// How many arguments a function of awk takes.
fn arity(name: &str) -> (usize, usize) {
    match name {
        "length" | "srand" | "fflush" => (0, 1),
        "rand" => (0, 0),
        "substr" | "sub" | "gsub" | "split" => (2, 3),
        "index" | "match" | "atan2" => (2, 2),
        "sprintf" => (1, usize::MAX),
        _ => (1, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the only expression of a program, written with all its brackets.
    fn check(text: &str, expect: &str) {
        let program = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let Pattern::When(expression) = &program.rules[0].pattern else { panic!("{text} is an expression") };
        assert_eq!(show(expression, &program.globals), expect, "{text}");
    }

    fn show(expression: &Expression, globals: &[String]) -> String {
        let show = |inner: &Expression| show(inner, globals);
        let name = |place: &Place| match place {
            Place::Global(at) => globals[*at].clone(),
            Place::Local(at) => format!("local{at}"),
        };
        let all = |list: &[Expression]| list.iter().map(show).collect::<Vec<_>>().join(", ");
        let target = |target: &Target| match target {
            Target::Variable(place) => name(place),
            Target::Element(place, keys) => format!("{}[{}]", name(place), all(keys)),
            Target::Field(number) => format!("${}", show(number)),
        };
        match expression {
            Expression::Number(number) => number.to_string(),
            Expression::Text(text) => format!("{text:?}"),
            Expression::Regex(pattern) => format!("/{pattern}/"),
            Expression::Read(read) => target(read),
            Expression::Assign(to, value) => format!("({} = {})", target(to), show(value)),
            Expression::Update(to, sign, value) => format!("({} {sign}= {})", target(to), show(value)),
            Expression::Step { target: of, by, before: true } => format!("({}then{by:+})", target(of)),
            Expression::Step { target: of, by, before: false } => format!("({by:+}then{})", target(of)),
            Expression::Binary(sign, left, right) | Expression::Compare(sign, left, right) => {
                format!("({} {sign} {})", show(left), show(right))
            }
            Expression::Concatenate(left, right) => format!("({} {})", show(left), show(right)),
            Expression::Match { negated, text, pattern } => {
                format!("({} {} {})", show(text), if *negated { "!~" } else { "~" }, show(pattern))
            }
            Expression::And(left, right) => format!("({} && {})", show(left), show(right)),
            Expression::Or(left, right) => format!("({} || {})", show(left), show(right)),
            Expression::Not(inner) => format!("!{}", show(inner)),
            Expression::Signed(minus, inner) => format!("{}{}", if *minus { '-' } else { '+' }, show(inner)),
            Expression::Choose(condition, then, other) => {
                format!("({} ? {} : {})", show(condition), show(then), show(other))
            }
            Expression::In(keys, array) => format!("([{}] in {})", all(keys), name(array)),
            Expression::Call(number, arguments) => format!("f{number}({})", all(arguments)),
            Expression::Builtin(function, arguments) => format!("{function}({})", all(arguments)),
            Expression::List(list) => format!("({})", all(list)),
        }
    }

    /// Checks what is said about a program that is none.
    fn check_fault(text: &str, expect: &str) {
        assert_eq!(parse(text).map_err(|fault| fault.to_string()), Err(expect.to_string()), "{text}");
    }

    #[test]
    fn operators_bind_as_in_posix() {
        check("a + b * c ^ d ^ e", "(a + (b * (c ^ (d ^ e))))");
        check("-a ^ 2", "-(a ^ 2)");
        check("a - b - c", "((a - b) - c)");
        check("a b + c d", "((a (b + c)) d)");
        check("a \" \" -1", "(a (\" \" - 1))");
        check("a < b && c ~ d || !e", "(((a < b) && (c ~ d)) || !e)");
        check("x = y += a ? b : c ? d : e", "(x = (y += (a ? b : (c ? d : e))))");
        check("$NF-1", "($NF - 1)");
        check("$i++ + ++$j", "(($ithen+1) + (+1then$j))");
        check("(a, b) in c", "([a, b] in c)");
        check("a in b in c", "([([a] in b)] in c)");
        check("length > 3", "(length() > 3)");
        check("a[1, 2] / b / c", "((a[1, 2] / b) / c)");
        check("!/x/ && /y\\/z/", "(!/x/ && /y/z/)");
    }

    #[test]
    fn parameters_hide_variables() {
        let program = parse("function f(a, b) { return a } { f(b) }").expect("a program");
        assert_eq!(program.functions[0].parameters, ["a", "b"]);
        assert_eq!(program.globals[SPECIAL.len()..], ["b"]);
    }

    #[test]
    fn statements_end_as_they_may() {
        for text in [
            "{ if (a) b; else c }",
            "{ if (a)\n b\n else\n c\n}",
            "BEGIN { for (;;) ; } ; END { do x++; while (x < 3) }",
            "{ for (k in a) delete a[k]; delete a }",
            "a, /b/\nc { next } # d",
            "{ print(1)(2), 3; print (1, 2); print a, b > c ? d : e }",
        ] {
            let fails = text.contains('>');
            assert_eq!(parse(text).is_err(), fails, "{text}");
        }
    }

    #[test]
    fn what_is_no_program_is_told() {
        check_fault("{ print $1", "1: Unexpected end of string");
        check_fault("{ print }\n}", "2: Unexpected token");
        check_fault("{ x = \"a }", "1: Unexpected end of string");
        check_fault("{ f(1) }", "1: Call to undefined function");
        check_fault("{ print > \"x\" }", "1: redirections are not simulated");
        check_fault("{ \"date\" | getline }", "1: redirections are not simulated");
        check_fault("{ getline x }", "1: getline is not simulated");
        check_fault("{ system(\"ls\") }", "1: system is not simulated");
        check_fault(&"{".repeat(100_000), "1: maximum nesting level exceeded (40)");
        check_fault(&"(".repeat(100_000), "1: expression too large (more than 1000 operands)");
        check_fault(&"$".repeat(100_000), "1: expression too large (more than 1000 operands)");
        check_fault(&"a ".repeat(100_000), "1: expression too large (more than 1000 operands)");
    }
}
