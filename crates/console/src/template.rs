//! The part of Go's templates that people use with `--format`: fields, `json`, a few functions, `if`, `range`.

use anyhow::{Context, bail};
use serde_json::Value;

/// A parsed template.
#[derive(Debug)]
pub struct Template(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Vec<Word>),
    If(Vec<Word>, Vec<Node>, Vec<Node>),
    Range { names: Option<(Option<String>, String)>, over: Vec<Word>, body: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// `.A.B`; empty: the dot itself.
    Field(Vec<String>),
    /// `$name.A`.
    Variable(String, Vec<String>),
    Text(String),
    Number(i64),
    Name(String),
    Pipe,
    Group(Vec<Word>),
}

type Variables = Vec<(String, Value)>;

impl Template {
    /// Parses; `\t` and `\n` outside of braces are tab and newline, as docker has them.
    ///
    /// # Errors
    /// For a template that does not read, with the part that does not.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut tokens = tokens(text)?.into_iter().peekable();
        let (nodes, end) = nodes(&mut tokens)?;
        match end {
            None => Ok(Self(nodes)),
            Some(word) => bail!("invalid template {text:?}: {{{{{word}}}}} without a beginning"),
        }
    }

    /// The text for one value.
    ///
    /// # Errors
    /// For fields and functions that are not there.
    pub fn render(&self, value: &Value) -> anyhow::Result<String> {
        let mut out = String::new();
        run(&self.0, value, &mut Vec::from([("".to_owned(), value.clone())]), &mut out)?;
        Ok(out)
    }

    /// For the heading of `table {{.A}}\t{{.B}}`: each field by its upper-case name.
    pub fn heading(&self, title: impl Fn(&str) -> String) -> String {
        let of = |node: &Node| match node {
            Node::Text(text) => text.clone(),
            Node::Print(words) => words
                .iter()
                .find_map(|word| match word {
                    Word::Field(path) => path.last().map(|name| title(name)),
                    _ => None,
                })
                .unwrap_or_default(),
            _ => String::new(),
        };
        self.0.iter().map(of).collect()
    }
}

enum Token {
    Text(String),
    Action(String),
}

fn tokens(text: &str) -> anyhow::Result<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let (plain, after) = rest.split_once("{{").map_or((rest, None), |(plain, after)| (plain, Some(after)));
        let mut plain = plain.replace("\\t", "\t").replace("\\n", "\n");
        if trim_next {
            plain = plain.trim_start().to_owned();
        }
        let Some(after) = after else {
            found.push(Token::Text(plain));
            return Ok(found);
        };
        let (action, later) =
            after.split_once("}}").with_context(|| format!("invalid template {text:?}: {{{{ without }}}}"))?;
        let action = action.strip_prefix("- ").inspect(|_| plain.truncate(plain.trim_end().len())).unwrap_or(action);
        trim_next = action.ends_with(" -");
        found.push(Token::Text(plain));
        found.push(Token::Action(action.strip_suffix(" -").unwrap_or(action).trim().to_owned()));
        rest = later;
    }
}

/// Nodes up to `end` or `else`, which is returned.
fn nodes(tokens: &mut std::iter::Peekable<std::vec::IntoIter<Token>>) -> anyhow::Result<(Vec<Node>, Option<String>)> {
    let mut found = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text(text) => {
                if !text.is_empty() {
                    found.push(Node::Text(text));
                }
                continue;
            }
            Token::Action(action) => action,
        };
        let (verb, rest) = action.split_once(' ').unwrap_or((&action, ""));
        match verb {
            "end" | "else" => return Ok((found, Some(action))),
            "if" => {
                let condition = words(rest)?;
                let (yes, no) = branches(tokens)?;
                found.push(Node::If(condition, yes, no));
            }
            "range" => {
                let (names, over) = match rest.split_once(":=") {
                    None => (None, rest),
                    Some((left, over)) => {
                        let names: Vec<String> =
                            left.split(',').map(|name| name.trim().trim_start_matches('$').to_owned()).collect();
                        match &names[..] {
                            [value] => (Some((None, value.clone())), over),
                            [key, value] => (Some((Some(key.clone()), value.clone())), over),
                            _ => bail!("invalid template: {{{{range {rest}}}}}"),
                        }
                    }
                };
                let over = words(over)?;
                let (body, otherwise) = branches(tokens)?;
                found.push(Node::Range { names, over, body, otherwise });
            }
            _ if action.starts_with("/*") => {}
            _ => found.push(Node::Print(words(&action)?)),
        }
    }
    Ok((found, None))
}

fn branches(tokens: &mut std::iter::Peekable<std::vec::IntoIter<Token>>) -> anyhow::Result<(Vec<Node>, Vec<Node>)> {
    let (yes, end) = nodes(tokens)?;
    match end.as_deref() {
        Some("end") => Ok((yes, Vec::new())),
        Some("else") => {
            let (no, end) = nodes(tokens)?;
            if end.as_deref() != Some("end") {
                bail!("invalid template: {{{{end}}}} is missing");
            }
            Ok((yes, no))
        }
        Some(other) => bail!("invalid template: {{{{{other}}}}} is not supported"),
        None => bail!("invalid template: {{{{end}}}} is missing"),
    }
}

fn words(text: &str) -> anyhow::Result<Vec<Word>> {
    let mut stack: Vec<Vec<Word>> = vec![Vec::new()];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        let word = match first {
            '(' => {
                stack.push(Vec::new());
                None
            }
            ')' => {
                let group = stack.pop().filter(|_| !stack.is_empty());
                Some(Word::Group(group.with_context(|| format!("invalid template: ) without ( in {text:?}"))?))
            }
            '|' => Some(Word::Pipe),
            '"' | '`' => {
                let end =
                    rest[1..].find(first).with_context(|| format!("invalid template: unclosed text in {text:?}"))?;
                length = end + 2;
                Some(Word::Text(rest[1..=end].replace("\\n", "\n").replace("\\t", "\t")))
            }
            _ => {
                length = rest.find(|c: char| c.is_whitespace() || "()|".contains(c)).unwrap_or(rest.len());
                Some(plain(&rest[..length]))
            }
        };
        if let (Some(word), Some(top)) = (word, stack.last_mut()) {
            top.push(word);
        }
        rest = rest[length..].trim_start();
    }
    let words = stack.pop().filter(|_| stack.is_empty());
    words.with_context(|| format!("invalid template: ( without ) in {text:?}"))
}

fn plain(text: &str) -> Word {
    let path = |text: &str| text.split('.').filter(|part| !part.is_empty()).map(Into::into).collect();
    if let Some(rest) = text.strip_prefix('.') {
        Word::Field(path(rest))
    } else if let Some(rest) = text.strip_prefix('$') {
        let (name, fields) = rest.split_once('.').unwrap_or((rest, ""));
        Word::Variable(name.into(), path(fields))
    } else if let Ok(number) = text.parse() {
        Word::Number(number)
    } else {
        Word::Name(text.into())
    }
}

fn run(nodes: &[Node], dot: &Value, variables: &mut Variables, out: &mut String) -> anyhow::Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(words) => out.push_str(&print(&evaluate(words, dot, variables)?)),
            Node::If(condition, yes, no) => {
                let chosen = if truth(&evaluate(condition, dot, variables)?) { yes } else { no };
                run(chosen, dot, variables, out)?;
            }
            Node::Range { names, over, body, otherwise } => {
                let entries: Vec<(Value, Value)> = match evaluate(over, dot, variables)? {
                    Value::Array(values) => values.into_iter().enumerate().map(|(at, it)| (at.into(), it)).collect(),
                    Value::Object(map) => map.into_iter().map(|(key, it)| (key.into(), it)).collect(),
                    Value::Null => Vec::new(),
                    other => bail!("template: cannot range over {other}"),
                };
                if entries.is_empty() {
                    run(otherwise, dot, variables, out)?;
                }
                for (key, value) in entries {
                    let depth = variables.len();
                    if let Some((key_name, value_name)) = names {
                        variables.extend(key_name.iter().map(|name| (name.clone(), key.clone())));
                        variables.push((value_name.clone(), value.clone()));
                    }
                    let done = run(body, &value, variables, out);
                    variables.truncate(depth);
                    done?;
                }
            }
        }
    }
    Ok(())
}

/// A pipeline: each command's value is the last argument of the next.
fn evaluate(words: &[Word], dot: &Value, variables: &Variables) -> anyhow::Result<Value> {
    let mut piped: Option<Value> = None;
    for command in words.split(|word| *word == Word::Pipe) {
        let (first, rest) = command.split_first().context("invalid template: an empty command")?;
        let mut arguments =
            rest.iter().map(|word| single(word, dot, variables)).collect::<anyhow::Result<Vec<Value>>>()?;
        arguments.extend(piped.take());
        piped = Some(match first {
            Word::Name(name) => call(name, &arguments)?,
            word if arguments.is_empty() => single(word, dot, variables)?,
            _ => bail!("invalid template: only functions take arguments"),
        });
    }
    piped.context("invalid template: an empty action")
}

fn single(word: &Word, dot: &Value, variables: &Variables) -> anyhow::Result<Value> {
    match word {
        Word::Field(path) => field(dot, path),
        Word::Variable(name, path) => {
            let found = variables.iter().rev().find(|(known, _)| known == name);
            field(&found.with_context(|| format!("template: no variable ${name}"))?.1, path)
        }
        Word::Text(text) => Ok(text.clone().into()),
        Word::Number(number) => Ok((*number).into()),
        Word::Name(name) => call(name, &[]),
        Word::Group(words) => evaluate(words, dot, variables),
        Word::Pipe => bail!("invalid template: misplaced |"),
    }
}

/// Objects with upper-case keys are docker's structs: a missing field there is an error; a map just has no such key. Where keys
/// are ours, `.MediaType` finds `media_type`.
fn field(value: &Value, path: &[String]) -> anyhow::Result<Value> {
    let mut at = value;
    for name in path {
        at = match at {
            Value::Object(map) => match map.get(name).or_else(|| map.get(&snake(name))) {
                Some(found) => found,
                None if map.contains_key("Id") || map.contains_key("ID") => bail!("template: no field {name:?} here"),
                None => return Ok(Value::Null),
            },
            Value::Null => return Ok(Value::Null),
            other => bail!("template: no field {name:?} in {other}"),
        };
    }
    Ok(at.clone())
}

/// `MediaType` → `media_type`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn call(name: &str, arguments: &[Value]) -> anyhow::Result<Value> {
    let text = |at: usize| arguments.get(at).map(print).unwrap_or_default();
    let length = |value: &Value| match value {
        Value::Array(values) => values.len(),
        Value::Object(map) => map.len(),
        other => print(other).len(),
    };
    Ok(match (name, arguments) {
        ("json", [value]) => serde_json::to_string(value)?.into(),
        ("upper", [_]) => text(0).to_uppercase().into(),
        ("lower", [_]) => text(0).to_lowercase().into(),
        ("title", [_]) => {
            let whole = text(0);
            let mut letters = whole.chars();
            letters
                .next()
                .map(|first| first.to_uppercase().chain(letters).collect::<String>())
                .unwrap_or_default()
                .into()
        }
        ("len", [value]) => length(value).into(),
        ("join", [Value::Array(values), _]) => values.iter().map(print).collect::<Vec<_>>().join(&text(1)).into(),
        ("split", [_, _]) => text(0).split(&text(1)).map(Value::from).collect::<Vec<_>>().into(),
        ("truncate", [_, Value::Number(length)]) => {
            text(0).chars().take(length.as_u64().unwrap_or(0) as usize).collect::<String>().into()
        }
        ("index", [value, keys @ ..]) => keys.iter().fold(value.clone(), |at, key| match (&at, key) {
            (Value::Array(values), Value::Number(n)) => {
                n.as_u64().and_then(|n| values.get(n as usize)).cloned().unwrap_or(Value::Null)
            }
            (Value::Object(map), key) => map.get(&print(key)).cloned().unwrap_or(Value::Null),
            _ => Value::Null,
        }),
        ("eq", [one, other]) => (print(one) == print(other)).into(),
        ("ne", [one, other]) => (print(one) != print(other)).into(),
        ("not", [value]) => (!truth(value)).into(),
        ("and", values) => values.iter().find(|value| !truth(value)).or(values.last()).cloned().unwrap_or(Value::Null),
        ("or", values) => values.iter().find(|value| truth(value)).or(values.last()).cloned().unwrap_or(Value::Null),
        ("print", values) => values.iter().map(print).collect::<String>().into(),
        ("println", values) => (values.iter().map(print).collect::<Vec<_>>().join(" ") + "\n").into(),
        ("true" | "false", []) => (name == "true").into(),
        _ => bail!("template: unknown function {name:?} (or a wrong number of arguments)"),
    })
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints values.
fn print(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn renders() {
        let value = json!({"Id": "abc", "State": {"Running": true, "Pid": 7}, "Labels": {"a.b": "c"}, "Args": ["x", "y"],
            "NetworkSettings": {"Networks": {"blue": {"IPAddress": "10.0.0.2"}}}});
        for (template, want) in [
            ("{{.Id}}", "abc"),
            ("{{ .State.Pid }}/{{json .State}}", r#"7/{"Running":true,"Pid":7}"#),
            (r"{{.Id}}\t{{.State.Running}}", "abc\ttrue"),
            ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.0.2"),
            ("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}} {{end}}", "blue=10.0.0.2 "),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            (r#"{{index .Labels "a.b"}}"#, "c"),
            (r#"{{join .Args ","}}"#, "x,y"),
            ("{{.Id | upper}}", "ABC"),
            ("{{len .Args}} {{.Args}}", "2 [x y]"),
            (r#"{{if eq .State.Pid 7}}seven{{end}}"#, "seven"),
            ("{{if and (not false) .State.Running}}y{{end}}", "y"),
            ("{{.Labels.nope}}", "<no value>"),
            ("plain", "plain"),
            ("a {{- .Id -}} b", "aabcb"),
        ] {
            assert_eq!(Template::parse(template).and_then(|it| it.render(&value)).unwrap(), want, "{template}");
        }
        for bad in
            ["{{", "{{.Id", "{{end}}", "{{if .Id}}", "{{nope .Id}}", "{{(.Id}}", "{{.Nope}}", "{{range .Id}}{{end}}"]
        {
            assert!(Template::parse(bad).and_then(|it| it.render(&value)).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_go_find_ours() {
        let value = json!({"media_type": "x", "digest": "d", "layers": [{"size": 7}]});
        let template = Template::parse("{{.MediaType}} {{.Digest}} {{range .Layers}}{{.Size}}{{end}}").unwrap();
        assert_eq!(template.render(&value).unwrap(), "x d 7");
    }

    #[test]
    fn headings() {
        let template = Template::parse(r"{{.ID}}\t{{.Names}}").unwrap();
        assert_eq!(template.heading(str::to_uppercase), "ID\tNAMES");
    }
}
