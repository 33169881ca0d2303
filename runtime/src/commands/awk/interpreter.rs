//! Runs a program of awk.

mod functions;

use super::parser::{Action, Expression, Pattern, Place, Program, Rule, SPECIAL, Sign, Statement, Target};
use super::records::{Records, Separator, translate};
use super::value::{Value, sprintf};
use super::{VALUE_LIMIT_BYTES, assignment};
use crate::process::{Allocation, Process, errno_text};
use crate::shell::depth::deep;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use regex::Regex;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Expressions and statements that wait for each other, those of functions that call functions among them.
const DEPTH_LIMIT: usize = 4000;
/// What variables, elements and fields hold together.
const MEMORY_LIMIT_BYTES: usize = 16 << 20;
/// What an element or a field holds besides its text.
const ELEMENT_BYTES: usize = 64;
/// Fields of a record that are assigned to.
const FIELD_LIMIT: usize = 100_000;
/// Regular expressions that are kept ready.
const PATTERNS_REMEMBERED: usize = 64;
/// Statements that cost as much as one small program.
const STATEMENTS_A_STEP: usize = 32;

/// Why a rule does not go on.
pub(super) enum Stop {
    /// The program is wrong.
    Fault(String),
    /// A file is.
    Unreadable(String),
    /// Nobody reads what it prints.
    Output(io::Error),
    Next,
    Exit,
}

impl From<&str> for Stop {
    fn from(message: &str) -> Stop {
        Stop::Fault(message.to_string())
    }
}

type Outcome<T> = Result<T, Stop>;

/// Where a statement leads.
enum Flow {
    On,
    Break,
    Continue,
    Return(Value),
}

type Array = Arc<Mutex<BTreeMap<String, Value>>>;

/// A variable.
enum Cell {
    Value(Value),
    Array(Array),
}

impl Default for Cell {
    fn default() -> Cell {
        Cell::Value(Value::Unset)
    }
}

/// A target whose subscripts are known.
enum Slot {
    Variable(Place),
    Element(Array, String),
    Field(usize),
}

/// A program while it runs.
pub(super) struct Interpreter {
    pub process: Process,
    program: Arc<Program>,
    globals: Vec<Cell>,
    /// The variables of the functions that run.
    frames: Vec<Vec<Cell>>,
    record: Value,
    /// Whether the record has yet to be put together from its fields.
    stale: bool,
    fields: Vec<Value>,
    field_bytes: usize,
    operands: VecDeque<String>,
    records: Option<Records>,
    /// Whether a file was opened; standard input is read when none is.
    opened: bool,
    in_range: Vec<bool>,
    patterns: BTreeMap<String, Regex>,
    seed: f64,
    random: u64,
    code: i32,
    line: usize,
    depth: usize,
    statements: usize,
    held: usize,
    memory: Allocation,
}

fn special(name: &str) -> usize {
    SPECIAL.iter().position(|known| *known == name).expect("awk knows it")
}

impl Interpreter {
    pub fn new(process: Process, program: Program, operands: Vec<String>) -> Interpreter {
        let memory = process.world.memory.allocate(0);
        let environment = process.env.iter().map(|(name, value)| (name.clone(), Value::Input(value.as_str().into())));
        let environment = Cell::Array(Arc::new(Mutex::new(environment.collect())));
        let mut globals: Vec<Cell> = program.globals.iter().map(|_| Cell::default()).collect();
        globals[special("ENVIRON")] = environment;
        let in_range = vec![false; program.rules.len()];
        let mut interpreter = Interpreter {
            process,
            program: Arc::new(program),
            globals,
            frames: Vec::new(),
            record: Value::Input("".into()),
            stale: false,
            fields: Vec::new(),
            field_bytes: 0,
            operands: operands.into(),
            records: None,
            opened: false,
            in_range,
            patterns: BTreeMap::new(),
            seed: 0.0,
            random: 0,
            code: 0,
            line: 1,
            depth: 0,
            statements: 0,
            held: 0,
            memory,
        };
        for (name, value) in [
            ("FS", " "),
            ("OFS", " "),
            ("ORS", "\n"),
            ("RS", "\n"),
            ("SUBSEP", "\u{1c}"),
            ("CONVFMT", "%.6g"),
            ("OFMT", "%.6g"),
        ] {
            interpreter.preset(name, value.to_string());
        }
        for name in ["NF", "NR", "FNR"] {
            interpreter.globals[special(name)] = Cell::Value(Value::Number(0.0));
        }
        interpreter
    }

    /// Sets a variable from outside, if the program has it.
    pub fn preset(&mut self, name: &str, value: String) {
        if let Some(at) = self.program.globals.iter().position(|global| global == name) {
            self.globals[at] = Cell::Value(Value::Input(value.into()));
        }
    }

    /// The line that runs.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Runs the program to its end; returns the exit code.
    pub async fn run(&mut self) -> Outcome<i32> {
        let program = self.program.clone();
        let has = |wanted: fn(&Pattern) -> bool| program.rules.iter().any(|rule| wanted(&rule.pattern));
        let mut going = self.edge(&Pattern::Begin).await?;
        if going && has(|pattern| *pattern != Pattern::Begin) {
            while going && self.next_record().await? {
                self.process.charge(1).await;
                going = self.rules(&program.rules).await?;
            }
        }
        self.edge(&Pattern::End).await?;
        Ok(self.code)
    }

    /// Runs the rules before or after all records; false says that the program has had enough.
    async fn edge(&mut self, pattern: &Pattern) -> Outcome<bool> {
        let program = self.program.clone();
        for rule in program.rules.iter().filter(|rule| rule.pattern == *pattern) {
            match self.body(rule).await {
                Err(Stop::Exit) => return Ok(false),
                Ok(()) | Err(Stop::Next) => {}
                Err(stop) => return Err(stop),
            }
        }
        Ok(true)
    }

    /// Runs the rules for a record.
    async fn rules(&mut self, rules: &[Rule]) -> Outcome<bool> {
        for (at, rule) in rules.iter().enumerate() {
            let ran = match self.applies(at, rule).await {
                Ok(true) => self.body(rule).await,
                Ok(false) => Ok(()),
                Err(stop) => Err(stop),
            };
            match ran {
                Ok(()) => {}
                Err(Stop::Next) => return Ok(true),
                Err(Stop::Exit) => return Ok(false),
                Err(stop) => return Err(stop),
            }
        }
        Ok(true)
    }

    async fn applies(&mut self, at: usize, rule: &Rule) -> Outcome<bool> {
        self.start_over();
        match &rule.pattern {
            Pattern::Begin | Pattern::End => Ok(false),
            Pattern::Always => Ok(true),
            Pattern::When(condition) => Ok(self.evaluate(condition).await?.truth()),
            Pattern::Range(first, last) => {
                let inside = self.in_range[at] || self.evaluate(first).await?.truth();
                self.in_range[at] = inside && !self.evaluate(last).await?.truth();
                Ok(inside)
            }
        }
    }

    /// Forgets the functions that `next` left.
    fn start_over(&mut self) {
        self.depth = 0;
        while let Some(frame) = self.frames.pop() {
            self.release(frame);
        }
    }

    async fn body(&mut self, rule: &Rule) -> Outcome<()> {
        self.start_over();
        match &rule.body {
            Some(body) => self.execute(body).await.map(|_| ()),
            None => self.print(&[]).await,
        }
    }

    // --- records and fields ---

    /// Reads the next record; false at the end of all files.
    async fn next_record(&mut self) -> Outcome<bool> {
        loop {
            if self.records.is_none() && !self.open_next()? {
                return Ok(false);
            }
            let separator = self.setting("RS");
            if separator.len() > 1 {
                return Err("RS of more than one character is not simulated".into());
            }
            let Some(records) = self.records.as_mut() else { return Ok(false) };
            match records.next(separator.bytes().next()).await {
                Ok(Some(record)) => {
                    for name in ["NR", "FNR"] {
                        let count = self.global(name).number() + 1.0;
                        self.globals[special(name)] = Cell::Value(Value::Number(count));
                    }
                    self.set_record(Value::Input(record.into()))?;
                    return Ok(true);
                }
                Ok(None) => self.records = None,
                Err(error) => return Err(Stop::Unreadable(errno_text(&error).to_string())),
            }
        }
    }

    /// Opens the next operand that is a file; those before it that assign do so.
    fn open_next(&mut self) -> Outcome<bool> {
        loop {
            let file = match self.operands.pop_front() {
                Some(file) => file,
                None if self.opened => return Ok(false),
                None => "-".to_string(),
            };
            if let Some((name, value)) = assignment(&file) {
                self.preset(name, value);
                continue;
            }
            self.opened = true;
            let opened = if file == "-" { Ok(self.process.stdin.clone()) } else { self.process.open_input(&file) };
            let input =
                opened.map_err(|error| Stop::Unreadable(format!("can't open '{file}': {}", errno_text(&error))))?;
            self.records = Some(Records::new(input));
            self.globals[special("FNR")] = Cell::Value(Value::Number(0.0));
            if file != "-" {
                self.preset("FILENAME", file);
            }
            return Ok(true);
        }
    }

    fn global(&self, name: &str) -> Value {
        match &self.globals[special(name)] {
            Cell::Value(value) => value.clone(),
            Cell::Array(_) => Value::Unset,
        }
    }

    fn setting(&self, name: &str) -> Arc<str> {
        self.global(name).text("%.6g")
    }

    fn text(&self, value: &Value) -> Arc<str> {
        match value {
            Value::Number(number) if number.fract() != 0.0 => value.text(&self.setting("CONVFMT")),
            value => value.text(""),
        }
    }

    fn set_record(&mut self, record: Value) -> Outcome<()> {
        let text = self.text(&record);
        let separator = self.separator(&self.setting("FS"), self.setting("RS").is_empty())?;
        (self.record, self.stale) = (record, false);
        self.fields = separator.split(&text);
        self.field_bytes = self.fields.iter().map(|field| field.bytes() + ELEMENT_BYTES).sum();
        self.count_fields();
        self.check_memory()
    }

    fn count_fields(&mut self) {
        self.globals[special("NF")] = Cell::Value(Value::Number(self.fields.len() as f64));
    }

    fn separator(&mut self, text: &str, lines: bool) -> Outcome<Separator> {
        let mut characters = text.chars();
        Ok(match (characters.next(), characters.next()) {
            (None, _) => Separator::Nothing,
            (Some(' '), None) => Separator::Blanks,
            (Some(_), None) if lines => Separator::Pattern(self.compile(&format!("{}|\n", regex::escape(text)))?),
            (Some(_), None) => Separator::Text(text.to_string()),
            _ => Separator::Pattern(self.compile(text)?),
        })
    }

    fn field(&mut self, number: usize) -> Outcome<Value> {
        if number > 0 {
            return Ok(self.fields.get(number - 1).cloned().unwrap_or_default());
        }
        if self.stale {
            let texts: Vec<Arc<str>> = self.fields.iter().map(|field| self.text(field)).collect();
            let record = texts.join(&*self.setting("OFS"));
            (self.record, self.stale) = (sized(record)?, false);
        }
        Ok(self.record.clone())
    }

    fn resize_fields(&mut self, count: usize) -> Outcome<()> {
        if count > FIELD_LIMIT {
            return Err(Stop::Fault(format!("field number too large (more than {FIELD_LIMIT})")));
        }
        self.fields.resize(count, Value::Input("".into()));
        self.stale = true;
        self.count_fields();
        self.field_bytes = self.fields.iter().map(|field| field.bytes() + ELEMENT_BYTES).sum();
        self.check_memory()
    }

    fn check_memory(&mut self) -> Outcome<()> {
        let held = self.held + self.field_bytes;
        self.memory.resize(held as u64);
        if held > MEMORY_LIMIT_BYTES { Err("out of memory".into()) } else { Ok(()) }
    }

    // --- variables ---

    fn cell(&mut self, place: Place) -> &mut Cell {
        match place {
            Place::Global(at) => &mut self.globals[at],
            Place::Local(at) => &mut self.frames.last_mut().expect("a function runs")[at],
        }
    }

    fn array(&mut self, place: Place) -> Outcome<Array> {
        let cell = self.cell(place);
        match cell {
            Cell::Array(array) => Ok(array.clone()),
            Cell::Value(Value::Unset) => {
                let array = Array::default();
                *cell = Cell::Array(array.clone());
                Ok(array)
            }
            Cell::Value(_) => Err("Not an array".into()),
        }
    }

    async fn key(&mut self, keys: &[Expression]) -> Outcome<String> {
        let mut parts = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.evaluate(key).await?;
            parts.push(self.text(&value));
        }
        let key = parts.join(&*self.setting("SUBSEP"));
        if key.len() > VALUE_LIMIT_BYTES { Err("out of memory".into()) } else { Ok(key) }
    }

    async fn slot(&mut self, target: &Target) -> Outcome<Slot> {
        Ok(match target {
            Target::Variable(place) => Slot::Variable(*place),
            Target::Element(place, keys) => {
                let key = self.key(keys).await?;
                Slot::Element(self.array(*place)?, key)
            }
            Target::Field(number) => {
                let number = self.evaluate(number).await?.number();
                if number < 0.0 {
                    return Err("Access to negative field".into());
                }
                Slot::Field(number as usize)
            }
        })
    }

    fn read(&mut self, slot: &Slot) -> Outcome<Value> {
        match slot {
            Slot::Variable(place) => match self.cell(*place) {
                Cell::Value(value) => Ok(value.clone()),
                Cell::Array(_) => Err("array in a scalar context".into()),
            },
            Slot::Field(number) => self.field(*number),
            Slot::Element(array, key) => {
                if let Some(value) = array.lock().get(key) {
                    return Ok(value.clone());
                }
                // To look at an element makes it.
                self.write(slot, Value::Unset)
            }
        }
    }

    fn write(&mut self, slot: &Slot, value: Value) -> Outcome<Value> {
        match slot {
            Slot::Variable(place) => {
                let Cell::Value(old) = self.cell(*place) else { return Err("array in a scalar context".into()) };
                let before = std::mem::replace(old, value.clone()).bytes();
                self.held = (self.held + value.bytes()).saturating_sub(before);
                if *place == Place::Global(special("NF")) {
                    self.resize_fields(value.number().max(0.0) as usize)?;
                }
            }
            Slot::Element(array, key) => {
                let added = key.len() + ELEMENT_BYTES;
                let before = array.lock().insert(key.clone(), value.clone()).map_or(0, |old| old.bytes() + added);
                self.held = (self.held + value.bytes() + added).saturating_sub(before);
            }
            Slot::Field(0) => self.set_record(value.clone())?,
            Slot::Field(number) => {
                if *number > self.fields.len() {
                    self.resize_fields(*number)?;
                }
                let before = std::mem::replace(&mut self.fields[number - 1], value.clone()).bytes();
                self.field_bytes = (self.field_bytes + value.bytes()).saturating_sub(before);
                self.stale = true;
            }
        }
        self.check_memory()?;
        Ok(value)
    }

    fn forget(&mut self, elements: impl Iterator<Item = (String, Value)>) {
        let freed: usize = elements.map(|(key, value)| key.len() + value.bytes() + ELEMENT_BYTES).sum();
        self.held = self.held.saturating_sub(freed);
    }

    fn release(&mut self, frame: Vec<Cell>) {
        for cell in frame {
            match cell {
                Cell::Value(value) => self.held = self.held.saturating_sub(value.bytes()),
                Cell::Array(array) => {
                    if let Some(array) = Arc::into_inner(array) {
                        self.forget(array.into_inner().into_iter());
                    }
                }
            }
        }
    }

    // --- statements ---

    fn execute<'a>(&'a mut self, statement: &'a Statement) -> BoxFuture<'a, Outcome<Flow>> {
        deep(async move {
            self.enter()?;
            self.line = statement.line;
            self.statements += 1;
            if self.statements.is_multiple_of(STATEMENTS_A_STEP) {
                self.process.charge(1).await;
            }
            let flow = self.act(&statement.action).await?;
            self.depth -= 1;
            Ok(flow)
        })
    }

    fn enter(&mut self) -> Outcome<()> {
        self.depth += 1;
        match self.depth > DEPTH_LIMIT {
            true => Err(Stop::Fault(format!("maximum nesting level exceeded ({DEPTH_LIMIT})"))),
            false => Ok(()),
        }
    }

    async fn holds(&mut self, condition: &Expression) -> Outcome<bool> {
        Ok(self.evaluate(condition).await?.truth())
    }

    async fn act(&mut self, action: &Action) -> Outcome<Flow> {
        match action {
            Action::Evaluate(expression) => {
                self.evaluate(expression).await?;
            }
            Action::Print(values) => self.print(values).await?,
            Action::Printf(values) => {
                let text = self.format(values).await?;
                self.process.stdout.write(text).await.map_err(Stop::Output)?;
            }
            Action::Block(statements) => {
                for statement in statements {
                    match self.execute(statement).await? {
                        Flow::On => {}
                        flow => return Ok(flow),
                    }
                }
            }
            Action::If(condition, then, otherwise) => {
                if self.holds(condition).await? {
                    return self.execute(then).await;
                } else if let Some(otherwise) = otherwise {
                    return self.execute(otherwise).await;
                }
            }
            Action::While(..) | Action::DoWhile(..) | Action::For(..) | Action::ForIn(..) => {
                return self.repeat(action).await;
            }
            Action::Delete(place, keys) => {
                let key = match keys {
                    Some(keys) => Some(self.key(keys).await?),
                    None => None,
                };
                let array = self.array(*place)?;
                let gone = match key {
                    Some(key) => array.lock().remove_entry(&key).into_iter().collect(),
                    None => std::mem::take(&mut *array.lock()),
                };
                self.forget(gone.into_iter());
            }
            Action::Next => return Err(Stop::Next),
            Action::Exit(code) => {
                if let Some(code) = code {
                    self.code = self.evaluate(code).await?.number() as i32 & 0xff;
                }
                return Err(Stop::Exit);
            }
            Action::Return(value) => {
                let value = match value {
                    Some(value) => self.evaluate(value).await?,
                    None => Value::Unset,
                };
                return Ok(Flow::Return(value));
            }
            Action::Break => return Ok(Flow::Break),
            Action::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// A loop.
    async fn repeat(&mut self, action: &Action) -> Outcome<Flow> {
        let always = Expression::Number(1.0);
        let (first, condition, step, body) = match action {
            Action::While(condition, body) => (None, condition, None, body),
            Action::DoWhile(body, condition) => {
                match self.execute(body).await? {
                    Flow::On | Flow::Continue => {}
                    Flow::Break => return Ok(Flow::On),
                    flow => return Ok(flow),
                }
                (None, condition, None, body)
            }
            Action::For(first, condition, step, body) => {
                (Some(first), condition.as_ref().unwrap_or(&always), Some(step), body)
            }
            Action::ForIn(target, place, body) => {
                let array = self.array(*place)?;
                let keys: Vec<String> = array.lock().keys().cloned().collect();
                for key in keys {
                    if !array.lock().contains_key(&key) {
                        continue;
                    }
                    let slot = self.slot(target).await?;
                    self.write(&slot, Value::Input(key.into()))?;
                    match self.execute(body).await? {
                        Flow::On | Flow::Continue => {}
                        Flow::Break => break,
                        flow => return Ok(flow),
                    }
                }
                return Ok(Flow::On);
            }
            _ => return Ok(Flow::On),
        };
        if let Some(first) = first {
            self.execute(first).await?;
        }
        while self.holds(condition).await? {
            match self.execute(body).await? {
                Flow::On | Flow::Continue => {}
                Flow::Break => break,
                flow => return Ok(flow),
            }
            if let Some(step) = step {
                self.execute(step).await?;
            }
        }
        Ok(Flow::On)
    }

    async fn print(&mut self, values: &[Expression]) -> Outcome<()> {
        let mut out = String::new();
        if values.is_empty() {
            let record = self.field(0)?;
            out += &self.text(&record);
        }
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                out += &self.setting("OFS");
            }
            let value = self.evaluate(value).await?;
            out += &value.text(&self.setting("OFMT"));
        }
        out += &self.setting("ORS");
        self.process.stdout.write(out).await.map_err(Stop::Output)
    }

    async fn format(&mut self, values: &[Expression]) -> Outcome<String> {
        let values = self.all(values).await?;
        let (format, values) = values.split_first().ok_or("Too few arguments")?;
        Ok(sprintf(&self.text(format), values, &self.setting("CONVFMT"))?)
    }

    async fn all(&mut self, expressions: &[Expression]) -> Outcome<Vec<Value>> {
        let mut values = Vec::with_capacity(expressions.len());
        for expression in expressions {
            values.push(self.evaluate(expression).await?);
        }
        Ok(values)
    }

    // --- expressions ---

    fn evaluate<'a>(&'a mut self, expression: &'a Expression) -> BoxFuture<'a, Outcome<Value>> {
        match expression {
            Expression::Number(number) => futures::future::ready(Ok(Value::Number(*number))).boxed(),
            Expression::Text(text) => futures::future::ready(Ok(text.clone().into())).boxed(),
            expression => deep(async move {
                self.enter()?;
                let value = self.value(expression).await?;
                self.depth -= 1;
                Ok(value)
            }),
        }
    }

    async fn value(&mut self, expression: &Expression) -> Outcome<Value> {
        Ok(match expression {
            Expression::Number(number) => Value::Number(*number),
            Expression::Text(text) => text.clone().into(),
            Expression::Regex(pattern) => {
                let record = self.field(0)?;
                let text = self.text(&record);
                self.compile(pattern)?.is_match(&text).into()
            }
            Expression::Read(target) => {
                let slot = self.slot(target).await?;
                self.read(&slot)?
            }
            Expression::Assign(target, value) => {
                let slot = self.slot(target).await?;
                let value = self.evaluate(value).await?;
                self.write(&slot, value)?
            }
            Expression::Update(target, sign, value) => {
                let slot = self.slot(target).await?;
                let value = self.evaluate(value).await?.number();
                let before = self.read(&slot)?.number();
                self.write(&slot, calculate(sign, before, value)?)?
            }
            Expression::Step { target, by, before } => {
                let slot = self.slot(target).await?;
                let old = self.read(&slot)?.number();
                self.write(&slot, Value::Number(old + by))?;
                Value::Number(if *before { old } else { old + by })
            }
            Expression::Binary(sign, left, right) => {
                let left = self.evaluate(left).await?.number();
                calculate(sign, left, self.evaluate(right).await?.number())?
            }
            Expression::Concatenate(left, right) => {
                let left = self.evaluate(left).await?;
                let right = self.evaluate(right).await?;
                sized(format!("{}{}", self.text(&left), self.text(&right)))?
            }
            Expression::Compare(sign, left, right) => {
                let left = self.evaluate(left).await?;
                let right = self.evaluate(right).await?;
                compare(sign, left.compare(&right, &self.setting("CONVFMT"))).into()
            }
            Expression::Match { negated, text, pattern } => {
                let text = self.evaluate(text).await?;
                let pattern = self.pattern(pattern).await?;
                (pattern.is_match(&self.text(&text)) != *negated).into()
            }
            Expression::And(left, right) => (self.holds(left).await? && self.holds(right).await?).into(),
            Expression::Or(left, right) => (self.holds(left).await? || self.holds(right).await?).into(),
            Expression::Not(inner) => (!self.holds(inner).await?).into(),
            Expression::Signed(minus, inner) => {
                let number = self.evaluate(inner).await?.number();
                Value::Number(if *minus { -number } else { number })
            }
            Expression::Choose(condition, then, otherwise) => {
                let chosen = if self.holds(condition).await? { then } else { otherwise };
                self.evaluate(chosen).await?
            }
            Expression::In(keys, place) => {
                let key = self.key(keys).await?;
                self.array(*place)?.lock().contains_key(&key).into()
            }
            Expression::Call(number, arguments) => self.call(*number, arguments).await?,
            Expression::Builtin(name, arguments) => self.builtin(name, arguments).await?,
            Expression::List(_) => return Err("Unexpected token".into()),
        })
    }

    async fn call(&mut self, number: usize, arguments: &[Expression]) -> Outcome<Value> {
        let program = self.program.clone();
        let function = &program.functions[number];
        let Some(body) = function.body.as_ref().filter(|_| arguments.len() <= function.parameters.len()) else {
            return Err("Wrong number of arguments".into());
        };
        let (mut frame, mut untyped) = (Vec::new(), Vec::new());
        for (at, argument) in arguments.iter().enumerate() {
            if let Expression::Read(Target::Variable(place)) = argument {
                match self.cell(*place) {
                    Cell::Array(array) => {
                        frame.push(Cell::Array(array.clone()));
                        continue;
                    }
                    Cell::Value(Value::Unset) => untyped.push((at, *place)),
                    Cell::Value(_) => {}
                }
            }
            let value = self.evaluate(argument).await?;
            self.held += value.bytes();
            frame.push(Cell::Value(value));
        }
        frame.resize_with(function.parameters.len(), Cell::default);
        self.check_memory()?;
        self.frames.push(frame);
        let line = self.line;
        let flow = self.execute(body).await?;
        self.line = line;
        let frame = self.frames.pop().unwrap_or_default();
        // A variable that had no value yet is the array that the function made of it.
        for (at, place) in untyped {
            if let (Cell::Array(array), cell @ Cell::Value(Value::Unset)) = (&frame[at], self.cell(place)) {
                *cell = Cell::Array(array.clone());
            }
        }
        self.release(frame);
        Ok(if let Flow::Return(value) = flow { value } else { Value::Unset })
    }

    // --- functions of awk ---

    async fn pattern(&mut self, expression: &Expression) -> Outcome<Regex> {
        if let Expression::Regex(pattern) = expression {
            return self.compile(pattern);
        }
        let value = self.evaluate(expression).await?;
        let text = self.text(&value);
        self.compile(&text)
    }

    fn compile(&mut self, pattern: &str) -> Outcome<Regex> {
        if let Some(known) = self.patterns.get(pattern) {
            return Ok(known.clone());
        }
        let compiled = Regex::new(&translate(pattern)).map_err(|_| Stop::Fault(format!("bad regex '{pattern}'")))?;
        if self.patterns.len() >= PATTERNS_REMEMBERED {
            self.patterns.clear();
        }
        self.patterns.insert(pattern.to_string(), compiled.clone());
        Ok(compiled)
    }
}

/// A text, if it is not too long.
fn sized(text: String) -> Outcome<Value> {
    if text.len() > VALUE_LIMIT_BYTES { Err("out of memory".into()) } else { Ok(text.into()) }
}

fn calculate(sign: Sign, left: f64, right: f64) -> Outcome<Value> {
    Ok(Value::Number(match sign {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        "/" | "%" if right == 0.0 => return Err("Division by zero".into()),
        "/" => left / right,
        "%" => left % right,
        _ => left.powf(right),
    }))
}

fn compare(sign: Sign, order: Option<Ordering>) -> bool {
    match sign {
        "<" => order.is_some_and(Ordering::is_lt),
        "<=" => order.is_some_and(Ordering::is_le),
        "==" => order.is_some_and(Ordering::is_eq),
        "!=" => order.is_none_or(Ordering::is_ne),
        ">" => order.is_some_and(Ordering::is_gt),
        _ => order.is_some_and(Ordering::is_ge),
    }
}
