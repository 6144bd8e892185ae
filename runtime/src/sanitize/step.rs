//! One statement.

use dojoc_ir::codes::{BAD_OPERANDS, OUT_OF_BOUNDS, TOKEN_BALANCE, UNINITIALISED, WRONG_UNIT};
use dojoc_ir::diag::Diagnostic;
use dojoc_ir::entity::EntityId;
use dojoc_ir::program::instr::{Access as Role, Ref};
use dojoc_ir::program::{Affine, Env, Instr, Stmt, TokenId, Unit, Var, ViewType};
use dojoc_ir::types::DType;

use super::channel::Here;
use super::launch::{LoopState, Progress, Run, StreamRef, Wait};
use super::memory::Access;
use super::operand::{self, Operand};
use super::report::{fault, note};
use super::shadow::Mark;
use crate::codes::{COUNT_RANGE, DATA_FAULT};
use crate::compute::{Bytes, Cx, Source, Target, execute};
use crate::kernels::Aligned;

impl Access {
    /// The same through the buffer of an operand.
    pub fn through(&self, operand: &Operand) -> Self {
        Self {
            buffer: Some((operand.buffer, operand.live_in)),
            ..self.clone()
        }
    }
}

impl Run<'_> {
    /// Carries out the next statement of a stream.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn step(&mut self, stream: StreamRef) -> Result<Progress, Diagnostic> {
        let program = self.program;
        let segment = self.call(stream.core).segment;
        let code = &program.segments[segment].streams[stream.stream].code;
        let thread = self.thread(stream);
        while let Some(top) = thread.loops.last_mut()
            && thread.at == top.end
        {
            if top.left > 0 {
                top.left -= 1;
                thread.at = top.start;
                if let Some(counter) = thread.counters.last_mut() {
                    *counter += 1;
                }
                break;
            }
            thread.loops.pop();
            thread.counters.pop();
        }
        let at = thread.at;
        let Some(inst) = code.get(at) else {
            return Ok(Progress::Ended);
        };
        let mark = Mark {
            segment,
            stream: stream.stream as u8,
            inst: at as u32,
            time: thread.clock[stream.stream],
        };
        let here = Here {
            stream,
            core: self.cores[stream.core].address,
            mark,
        };
        let progress = self.statement(&here, &inst.stmt);
        let progress = progress.map_err(|found| self.options.locate(found, mark.place()))?;
        if progress == Progress::Done {
            if !matches!(inst.stmt, Stmt::View(_) | Stmt::Loop { .. }) {
                self.stats.instructions += 1;
                self.show(&here)?;
            }
            if !matches!(inst.stmt, Stmt::Loop { .. }) {
                self.thread(stream).at += 1;
            }
        }
        Ok(progress)
    }

    fn access(&self, here: &Here) -> Access {
        Access {
            mark: here.mark,
            clock: self.call(here.stream.core).threads[here.stream.stream].clock,
            call: self.cores[here.stream.core].calls,
            buffer: None,
        }
    }

    /// Calls `f` with the values of all variables. Registers without a value are zeros, see
    /// [`needs`](Self::needs).
    pub fn with_env<T>(&self, here: &Here, f: impl FnOnce(&Env<'_>) -> T) -> T {
        let call = self.call(here.stream.core);
        let registers: Vec<i64> = call.registers.iter().map(|r| r.unwrap_or(0)).collect();
        f(&Env {
            params: &call.row,
            dims: self.dims,
            loops: &call.threads[here.stream.stream].counters,
            registers: &registers,
        })
    }

    /// Checks that the registers of an expression have values.
    fn needs(&self, here: &Here, expr: &Affine) -> Result<(), Diagnostic> {
        let call = self.call(here.stream.core);
        for (var, _) in &expr.terms {
            if let Var::Register(register) = var
                && call.registers.get(usize::from(*register)) == Some(&None)
            {
                let segment = &self.program.segments[call.segment];
                let name = &segment.registers[usize::from(*register)];
                let what = format!("register %{name} has no value yet");
                return Err(self.fault(here, UNINITIALISED, &what));
            }
        }
        Ok(())
    }

    fn fault(&self, here: &Here, code: u16, what: &str) -> Diagnostic {
        fault(self.program, here.core, &here.mark, code, what)
    }

    /// The value of an expression; `None` where it overflows.
    fn value(&self, here: &Here, expr: &Affine) -> Result<Option<i64>, Diagnostic> {
        self.needs(here, expr)?;
        Ok(self.with_env(here, |env| expr.eval(env)))
    }

    fn operand(&self, here: &Here, operand: Ref) -> Result<Operand, Diagnostic> {
        let segment = &self.program.segments[here.mark.segment];
        if let Ref::View(view) = operand
            && let Some(view) = segment.views.get(view)
        {
            self.needs(here, &view.offset)?;
            for extent in &view.shape {
                self.needs(here, extent)?;
            }
        }
        self.with_env(here, |env| {
            operand::resolve(segment, operand, env, self.sram_bytes)
        })
        .map_err(|(code, what)| self.fault(here, code, &what))
    }

    fn statement(&mut self, here: &Here, stmt: &Stmt) -> Result<Progress, Diagnostic> {
        let access = self.access(here);
        match stmt {
            Stmt::View(_) => Ok(Progress::Done),
            Stmt::Loop { count, len, .. } => self.enter_loop(here, count, *len),
            Stmt::Compute {
                instr,
                operands,
                scalars,
            } => self.compute(here, instr, operands, scalars, &access),
            Stmt::Post { family, port, slot } => {
                let slot = self.operand(here, *slot)?;
                let port = self.value(here, port)?;
                let end = self.incoming(here, *family, port)?;
                let access = access.through(&slot);
                self.post(here, end, slot, &access)
            }
            Stmt::Send { family, port, from } => {
                let from = self.operand(here, *from)?;
                let port = self.value(here, port)?;
                let ends = self.outgoing(here, *family, port)?;
                self.send(here, &ends, &from, &access)
            }
            Stmt::Receive { family, port, slot } => {
                let slot = self.operand(here, *slot)?;
                let port = self.value(here, port)?;
                let end = self.incoming(here, *family, port)?;
                let access = access.through(&slot);
                self.receive(here, end, &slot, &access)
            }
            Stmt::Relay {
                family,
                port,
                slot,
                to,
                to_port,
            } => {
                let slot = self.operand(here, *slot)?;
                if !self.thread(here.stream).relaying {
                    let port = self.value(here, port)?;
                    let end = self.incoming(here, *family, port)?;
                    let progress = self.receive(here, end, &slot, &access.through(&slot))?;
                    if progress != Progress::Done {
                        return Ok(progress);
                    }
                    self.thread(here.stream).relaying = true;
                }
                let port = self.value(here, to_port)?;
                let ends = self.outgoing(here, *to, port)?;
                let access = self.access(here);
                let progress = self.send(here, &ends, &slot, &access)?;
                if progress == Progress::Done {
                    self.thread(here.stream).relaying = false;
                }
                Ok(progress)
            }
            Stmt::Signal(token) => self.signal(here, *token),
            Stmt::Wait(token) => self.wait(here, *token),
            Stmt::DramBegin(dram) => self.begin(here, *dram),
            Stmt::DramCommit(dram) => self.commit(here, *dram),
            Stmt::DramAcquire { dram, owner } => {
                let owner = self.value(here, owner)?;
                self.acquire(here, *dram, owner)
            }
            Stmt::DramRelease { dram, owner } => {
                let owner = self.value(here, owner)?;
                self.release(here, *dram, owner)
            }
            Stmt::DramLoad {
                dram,
                owner,
                offset,
                strides,
                to,
            } => {
                let to = self.operand(here, *to)?;
                let owner = self.value(here, owner)?;
                let offset = self.value(here, offset)?;
                let instance = self.instance(here, *dram, owner)?;
                self.load(here, instance, (offset, strides), &to, &access)
            }
            Stmt::DramStore {
                dram,
                offset,
                strides,
                from,
            } => {
                let from = self.operand(here, *from)?;
                let offset = self.value(here, offset)?;
                let instance = self.own_instance(here, *dram)?;
                self.store(here, instance, (offset, strides), &from, &access)
            }
            Stmt::Count {
                register,
                from,
                max,
                ..
            } => {
                let from = self.operand(here, *from)?;
                self.count(here, *register, &from, *max, &access)
            }
        }
    }

    fn enter_loop(
        &mut self,
        here: &Here,
        count: &Affine,
        len: u32,
    ) -> Result<Progress, Diagnostic> {
        let Some(count) = self.value(here, count)? else {
            return Err(self.fault(here, OUT_OF_BOUNDS, "the number of iterations overflows"));
        };
        let thread = self.thread(here.stream);
        let start = thread.at + 1;
        let end = start + len as usize;
        if count <= 0 || len == 0 {
            thread.at = end;
            return Ok(Progress::Done);
        }
        thread.at = start;
        thread.loops.push(LoopState {
            start,
            end,
            left: count - 1,
        });
        thread.counters.push(0);
        Ok(Progress::Done)
    }

    fn signal(&mut self, here: &Here, token: TokenId) -> Result<Progress, Diagnostic> {
        let core = here.stream.core;
        let stream = here.stream.stream;
        let clock = self.thread(here.stream).clock;
        let state = &mut self.call_mut(core).tokens[token.index()];
        if let Some(other) = state
            .signal
            .filter(|other| other.stream != here.mark.stream)
        {
            let found = self.fault(here, TOKEN_BALANCE, "another stream signals the token too");
            return Err(found.note(note(self.program, here.core, &other, "signalled by")));
        }
        state.signal = Some(here.mark);
        state.pending.push_back(clock);
        self.thread(here.stream).clock[stream] += 1;
        self.wake(Wait::Token(core, token.index()));
        Ok(Progress::Done)
    }

    fn wait(&mut self, here: &Here, token: TokenId) -> Result<Progress, Diagnostic> {
        let core = here.stream.core;
        let state = &mut self.call_mut(core).tokens[token.index()];
        if let Some(other) = state.wait.filter(|other| other.stream != here.mark.stream) {
            let found = self.fault(
                here,
                TOKEN_BALANCE,
                "another stream waits for the token too",
            );
            return Err(found.note(note(self.program, here.core, &other, "waited for by")));
        }
        state.wait = Some(here.mark);
        let Some(clock) = state.pending.pop_front() else {
            return Ok(Progress::Waits(Wait::Token(core, token.index())));
        };
        let own = &mut self.thread(here.stream).clock;
        for (own, seen) in own.iter_mut().zip(clock) {
            *own = (*own).max(seen);
        }
        Ok(Progress::Done)
    }

    fn count(
        &mut self,
        here: &Here,
        register: u16,
        from: &Operand,
        max: u64,
        access: &Access,
    ) -> Result<Progress, Diagnostic> {
        let dtype = from.layout.view.dtype;
        if from.layout.elements != 1 || !matches!(dtype, DType::I32 | DType::I64) {
            let what = format!("{} is not one element of i32 or i64", from.name);
            return Err(self.fault(here, BAD_OPERANDS, &what));
        }
        self.check_read(here, from, access)?;
        let bytes = self.sram(here.core, from)?.dense(from.at, &from.layout);
        let value = match <[u8; 8]>::try_from(bytes.as_slice()) {
            Ok(bytes) => i64::from_le_bytes(bytes),
            Err(_) => {
                let mut word = [0; 4];
                word.copy_from_slice(&bytes[..4]);
                i32::from_le_bytes(word).into()
            }
        };
        if value < 0 || value as u64 > max {
            let what = format!("{} is {value}, outside 0 to {max}", from.name);
            return Err(self.fault(here, COUNT_RANGE, &what));
        }
        let registers = &mut self.call_mut(here.stream.core).registers;
        if let Some(slot) = registers.get_mut(usize::from(register)) {
            *slot = Some(value);
        }
        Ok(Progress::Done)
    }

    fn compute(
        &mut self,
        here: &Here,
        instr: &Instr,
        operands: &[Ref],
        scalars: &[Affine],
        access: &Access,
    ) -> Result<Progress, Diagnostic> {
        let segment = &self.program.segments[here.mark.segment];
        if instr.needs_matrix() && segment.streams[here.stream.stream].unit != Unit::Matrix {
            return Err(self.fault(here, WRONG_UNIT, "needs the matrix stream"));
        }
        let operands: Vec<Operand> = operands
            .iter()
            .map(|operand| self.operand(here, *operand))
            .collect::<Result<_, _>>()?;
        let types: Vec<ViewType> = operands.iter().map(|o| o.layout.view.clone()).collect();
        instr
            .check(&types)
            .map_err(|what| self.fault(here, BAD_OPERANDS, &what))?;
        let mut values = Vec::with_capacity(scalars.len());
        for scalar in scalars {
            let value = self.value(here, scalar)?;
            let overflow = || self.fault(here, OUT_OF_BOUNDS, "a scalar overflows");
            values.push(value.ok_or_else(overflow)?);
        }
        let roles = instr.roles();
        // An instruction acts as if it read everything before it writes.
        let mut images = Vec::with_capacity(operands.len());
        for (operand, role) in operands.iter().zip(&roles) {
            if role.access != Role::Write {
                self.check_read(here, operand, access)?;
            }
            let memory = self.sram(here.core, operand)?;
            let bytes = memory.image(operand.at, &operand.layout);
            let mut image = Aligned::<u8>::new(bytes.len());
            image.copy_from_slice(bytes);
            images.push(image);
        }
        for (operand, role) in operands.iter().zip(&roles) {
            if role.access != Role::Read {
                self.check_write(here, operand, access)?;
            }
        }
        let mut targets = Vec::new();
        let mut sources = Vec::new();
        for ((operand, role), image) in operands.iter().zip(&roles).zip(&mut images) {
            let layout = &operand.layout;
            match role.access {
                Role::Read => sources.push(Source {
                    layout,
                    bytes: Bytes::Slice(image),
                    panels: None,
                }),
                _ => targets.push(Target {
                    layout,
                    bytes: image,
                }),
            }
        }
        let (seed, step) = self.seed();
        let mut cx = Cx {
            kernels: self.kernels,
            scratch: &mut self.scratch,
            seed,
            step,
        };
        let done = execute(instr, &mut targets, &sources, &values, &mut cx);
        done.map_err(|found| self.fault(here, DATA_FAULT, &found.message))?;
        for ((operand, role), image) in operands.iter().zip(&roles).zip(&images) {
            if role.access != Role::Read {
                let memory = self.sram(here.core, operand)?;
                memory.set_image(operand.at, &operand.layout, image);
            }
        }
        self.stats.flops += instr.flops(operands.iter().map(|operand| &operand.layout.view));
        Ok(Progress::Done)
    }
}
