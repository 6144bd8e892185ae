//! Segments as text.

use std::fmt;

use dojoc_grammar::quote_name;

use super::{
    affine, constant_type, end_of, indentation, ints, is_default, layout_attrs, loc_clause, symbol,
    word,
};
use crate::program::instr::Ref;
use crate::program::{
    Affine, Buffer, BufferRole, DramId, FamilyId, Inst, Packing, Program, Segment, SegmentId, Stmt,
    Stream, TokenId, Unit, View,
};
use crate::types::DType;

/// One statement as its first line in the text form, for messages; `?` if there is none.
pub fn inst_line(program: &Program, segment: SegmentId, stream: u32, index: u32) -> String {
    let found = program.segments.get(segment).and_then(|segment| {
        let code = &segment.streams.get(stream as usize)?.code;
        Some((segment, code, code.get(index as usize)?))
    });
    let Some((segment, code, inst)) = found else {
        return "?".into();
    };
    let mut open: Vec<(&str, usize)> = vec![];
    for (at, inst) in code.iter().enumerate().take(index as usize) {
        open.retain(|(_, end)| *end > at);
        if let Stmt::Loop { name, len, .. } = &inst.stmt {
            open.push((name, end_of(at, *len, open.last(), code.len())));
        }
    }
    open.retain(|(_, end)| *end > index as usize);
    let loops: Vec<&str> = open.iter().map(|(name, _)| *name).collect();
    let line = Printer { program, segment }.statement(&inst.stmt, &loops);
    match &inst.stmt {
        Stmt::Loop { .. } => line + " (...)",
        _ => line,
    }
}

/// Prints a segment as a declaration.
pub(super) fn print(
    program: &Program,
    segment: &Segment,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let printer = Printer { program, segment };
    let params: Vec<String> = segment
        .params
        .iter()
        .map(|name| format!("%{} : index", quote_name(name)))
        .collect();
    writeln!(
        f,
        "  segment @{}({}) {{",
        quote_name(&segment.name),
        params.join(", ")
    )?;
    for buffer in segment.buffers.values() {
        writeln!(f, "    {}", printer.buffer(buffer))?;
    }
    for token in segment.tokens.values() {
        writeln!(f, "    %{} = token", quote_name(token))?;
    }
    for stream in &segment.streams {
        printer.stream(stream, f)?;
    }
    writeln!(f, "  }}{}", loc_clause(program, segment.loc))
}

struct Printer<'a> {
    program: &'a Program,
    segment: &'a Segment,
}

impl Printer<'_> {
    fn buffer(&self, buffer: &Buffer) -> String {
        let Buffer {
            name,
            at,
            dtype,
            shape,
            packing,
            role,
            loc,
        } = buffer;
        let mut attrs = format!("at = {}", self.affine(at, &[]));
        if *role != BufferRole::Scratch {
            attrs += &format!(", role = \"{}\"", word(&BufferRole::ALL, role));
        }
        if *packing != Packing::Strided {
            attrs += &format!(", packing = \"{}\"", word(&Packing::ALL, packing));
        }
        let loc = loc_clause(self.program, *loc);
        let ty = constant_type(*dtype, shape);
        format!("%{} = buffer {{{attrs}}} : {ty}{loc}", quote_name(name))
    }

    fn stream(&self, stream: &Stream, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    {} (\n      {{ ^()", word(&Unit::ALL, &stream.unit))?;
        // Counters of the loops around a statement with the statement behind their body.
        let mut open: Vec<(&str, usize, String)> = vec![];
        let mut loops: Vec<&str> = vec![];
        for at in 0..=stream.code.len() {
            while let Some((_, _, loc)) = open.pop_if(|(_, end, _)| *end <= at) {
                loops.pop();
                let indent = indentation(1 + open.len());
                writeln!(f, "{indent}  }}\n{indent}){loc}")?;
            }
            let Some(Inst { stmt, loc }) = stream.code.get(at) else {
                break;
            };
            let indent = indentation(1 + open.len());
            let loc = loc_clause(self.program, *loc);
            let line = self.statement(stmt, &loops);
            if let Stmt::Loop { name, len, .. } = stmt {
                writeln!(f, "{indent}{line} (")?;
                writeln!(f, "{indent}  {{ ^(%{} : index)", quote_name(name))?;
                let outer = open.last().map(|(name, end, _)| (*name, *end));
                let end = end_of(at, *len, outer.as_ref(), stream.code.len());
                open.push((name, end, loc));
                loops.push(name);
            } else {
                writeln!(f, "{indent}{line}{loc}")?;
            }
        }
        writeln!(f, "      }}\n    )")
    }

    fn affine(&self, expr: &Affine, loops: &[&str]) -> String {
        affine(self.program, Some(self.segment), loops, expr)
    }

    fn operand(&self, operand: Ref) -> String {
        let name = match operand {
            Ref::Buffer(id) => self.segment.buffers.get(id).map(|b| &b.name),
            Ref::View(id) => self.segment.views.get(id).map(|v| &v.name),
        };
        value(name.map(|name| &**name))
    }

    fn family(&self, id: FamilyId) -> String {
        symbol(self.program.families.get(id).map(|family| &*family.name))
    }

    fn dram(&self, id: DramId) -> String {
        symbol(self.program.dram.get(id).map(|dram| &*dram.name))
    }

    fn token(&self, id: TokenId) -> String {
        value(self.segment.tokens.get(id).map(|name| &**name))
    }

    /// A statement without the region of a loop and without location.
    fn statement(&self, stmt: &Stmt, loops: &[&str]) -> String {
        let word = stmt.mnemonic();
        let number = |name: &str, expr: &Affine| {
            let text = (*expr != Affine::default()).then(|| self.affine(expr, loops));
            text.map(|text| format!("{name} = {text}"))
        };
        let with = |head: String, attrs: Vec<Option<String>>| {
            let attrs: Vec<String> = attrs.into_iter().flatten().collect();
            if attrs.is_empty() {
                head
            } else {
                format!("{head} {{{}}}", attrs.join(", "))
            }
        };
        match stmt {
            Stmt::View(id) => match self.segment.views.get(*id) {
                Some(view) => self.view(view, loops),
                None => "%? = view ?".into(),
            },
            Stmt::Compute {
                instr,
                operands,
                scalars,
            } => {
                let operands: Vec<String> = operands.iter().map(|o| self.operand(*o)).collect();
                let attrs = instr.attrs().0.into_iter();
                let mut attrs: Vec<String> =
                    attrs.map(|(n, value)| format!("{n} = {value}")).collect();
                let names = instr.scalars();
                for (at, scalar) in scalars.iter().enumerate() {
                    let name = names.get(at).copied().unwrap_or("?");
                    attrs.push(format!("{name} = {}", self.affine(scalar, loops)));
                }
                let mut head = word.to_owned();
                if !operands.is_empty() {
                    head += &format!(" {}", operands.join(", "));
                }
                with(head, attrs.into_iter().map(Some).collect())
            }
            Stmt::Post {
                family,
                port,
                slot: operand,
            }
            | Stmt::Send {
                family,
                port,
                from: operand,
            }
            | Stmt::Receive {
                family,
                port,
                slot: operand,
            } => {
                let head = format!(
                    "{word} {}, {}",
                    self.family(*family),
                    self.operand(*operand)
                );
                with(head, vec![number("port", port)])
            }
            Stmt::Relay {
                family,
                port,
                slot,
                to,
                to_port,
            } => {
                let (family, to) = (self.family(*family), self.family(*to));
                let head = format!("{word} {family}, {}, {to}", self.operand(*slot));
                with(head, vec![number("port", port), number("to_port", to_port)])
            }
            Stmt::Signal(token) | Stmt::Wait(token) => format!("{word} {}", self.token(*token)),
            Stmt::DramBegin(dram) | Stmt::DramCommit(dram) => {
                format!("{word} {}", self.dram(*dram))
            }
            Stmt::DramAcquire { dram, owner } | Stmt::DramRelease { dram, owner } => with(
                format!("{word} {}", self.dram(*dram)),
                vec![number("owner", owner)],
            ),
            Stmt::DramLoad {
                dram,
                owner,
                offset,
                strides,
                to,
            } => {
                let head = format!("{word} {}, {}", self.operand(*to), self.dram(*dram));
                let strides = self.dram_strides(*to, strides);
                with(
                    head,
                    vec![number("owner", owner), number("offset", offset), strides],
                )
            }
            Stmt::DramStore {
                dram,
                offset,
                strides,
                from,
            } => {
                let head = format!("{word} {}, {}", self.dram(*dram), self.operand(*from));
                with(
                    head,
                    vec![number("offset", offset), self.dram_strides(*from, strides)],
                )
            }
            Stmt::Loop { count, .. } => {
                format!("{word} {{count = {}}}", self.affine(count, loops))
            }
            Stmt::Count {
                register,
                from,
                max,
                via,
            } => {
                let name = self.segment.registers.get(usize::from(*register));
                let name = value(name.map(|name| &**name));
                let via = via.map(|via| format!("via = {}", self.family(via)));
                let head = format!("{name} = {word} {}", self.operand(*from));
                with(head, vec![Some(format!("max = {max}")), via])
            }
        }
    }

    fn view(&self, view: &View, loops: &[&str]) -> String {
        let View {
            name,
            buffer,
            offset,
            dtype,
            shape,
            strides,
            packing,
        } = view;
        let mut attrs = String::new();
        if *offset != Affine::default() {
            attrs = format!(", offset = {}", self.affine(offset, loops));
        }
        attrs += &layout_attrs(*dtype, constants(shape), strides, *packing);
        if let Some(attrs_without_comma) = attrs.strip_prefix(", ") {
            attrs = format!(" {{{attrs_without_comma}}}");
        }
        let shape: Vec<String> = shape.iter().map(|e| self.affine(e, loops)).collect();
        let (name, of) = (quote_name(name), self.operand(Ref::Buffer(*buffer)));
        format!("%{name} = view {of}{attrs} : {dtype}[{}]", shape.join(", "))
    }

    fn dram_strides(&self, operand: Ref, strides: &[i64]) -> Option<String> {
        let dense = operand_type(self.segment, operand).is_some_and(|(dtype, shape)| {
            is_default(dtype, Some(shape), strides, Packing::Strided)
        });
        (!dense).then(|| format!("strides = {}", ints(strides)))
    }
}

/// `%name`, or `%?`.
fn value(name: Option<&str>) -> String {
    name.map_or("%?".into(), |name| format!("%{}", quote_name(name)))
}

fn constants(shape: &[Affine]) -> Option<Vec<u64>> {
    shape
        .iter()
        .map(|extent| u64::try_from(extent.as_constant()?).ok())
        .collect()
}

/// Element type and extents of an operand whose extents are numbers.
pub(in crate::program) fn operand_type(
    segment: &Segment,
    operand: Ref,
) -> Option<(DType, Vec<u64>)> {
    match operand {
        Ref::Buffer(id) => segment.buffers.get(id).map(|b| (b.dtype, b.shape.clone())),
        Ref::View(id) => {
            let view = segment.views.get(id)?;
            Some((view.dtype, constants(&view.shape)?))
        }
    }
}
