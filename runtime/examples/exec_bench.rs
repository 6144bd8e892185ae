//! Throwaway bench.
use std::sync::Arc;
use std::time::Instant;
use dojoc_ir::machine::Machine;
use dojoc_ir::program::{Program, parse::parse};
use dojoc_ir::tensor::Tensor;
use dojoc_runtime::exec::Executor;
use dojoc_runtime::host::{Engine, Keep, place};
use dojoc_runtime::kernels::*;
use dojoc_runtime::options::RunOptions;
use half::bf16;

fn load(text: &str) -> (Arc<Program>, Executor) {
    let (p, _) = parse(text).map_err(|e| panic!("{e}")).unwrap();
    let p = Arc::new(p);
    let m = Machine::parse(Machine::builtin("exapod").unwrap(), "exapod").unwrap();
    let e = Executor::new(p.clone(), &m, u64::MAX).map_err(|e| panic!("{e}")).unwrap();
    (p, e)
}
fn run(p: &Program, e: &mut Executor, inputs: &[Tensor], o: &RunOptions) -> (f64, dojoc_runtime::options::Stats) {
    let (id, entry) = p.entries.iter().next().unwrap();
    e.begin(o);
    for (t, x) in entry.inputs.iter().zip(inputs) {
        place(x, &p.tensors[*t], p, &[], e, Keep::Run).unwrap();
    }
    let (t, c) = (Instant::now(), cpu());
    let s = e.run(id, &[], o, None).map_err(|e| panic!("{e}")).unwrap();
    let t = if o.threads == 1 { cpu() - c } else { t.elapsed().as_secs_f64() };
    e.end(true);
    (t, s)
}
fn mesh(ty: &str, n: usize) -> String {
    let blk = 2048 / n; let sz = if ty == "bf16" {2} else {4};
    let bb = blk*blk*sz; let cb = blk*blk*4;
    let a0=0; let b0=bb; let c0=2*bb; let a1=c0+cb; let b1=a1+bb;
    let (n1, n) = (n-1, n);
    format!(r#"dojo program 1
program @mesh {{machine = "exapod"}} {{
  cores @mesh = [box(0, [0, {n}], [0, {n}])]
  channel @left {{from = @mesh, to = @mesh, peer = {n}*row + mod(column + {n1}, {n})}}
  channel @up {{from = @mesh, to = @mesh, peer = {n}*mod(row + {n1}, {n}) + column}}
  input @a : {ty}[2048, 2048] = [{{on = @mesh, at = {a0}, slice = [[{blk}*row, {blk}], [{blk}*mod(row + column, {n}), {blk}]]}}]
  input @b : {ty}[2048, 2048] = [{{on = @mesh, at = {b0}, slice = [[{blk}*mod(row + column, {n}), {blk}], [{blk}*column, {blk}]]}}]
  output @c : f32[2048, 2048] = [{{on = @mesh, at = {c0}, slice = [[{blk}*row, {blk}], [{blk}*column, {blk}]]}}]
  segment @gemm() {{
    %a = buffer {{at = {a0}, role = "inout"}} : {ty}[{blk}, {blk}]
    %b = buffer {{at = {b0}, role = "inout"}} : {ty}[{blk}, {blk}]
    %c = buffer {{at = {c0}, role = "out"}} : f32[{blk}, {blk}]
    %a2 = buffer {{at = {a1}}} : {ty}[{blk}, {blk}]
    %b2 = buffer {{at = {b1}}} : {ty}[{blk}, {blk}]
    %full = token
    %free = token
    matrix ({{ ^()
      mm %c, %a, %b
      signal %free
      for {{count = {half}}} ({{ ^(%k : index)
        wait %full
        mm %c, %a2, %b2 {{accumulate = true}}
        signal %free
        wait %full
        mm %c, %a, %b {{accumulate = true}}
        signal %free
      }})
      wait %full
      mm %c, %a2, %b2 {{accumulate = true}}
    }})
    comm0 ({{ ^()
      for {{count = {half}}} ({{ ^(%k : index)
        post @left, %a2
        post @up, %b2
        send @left, %a
        send @up, %b
        recv @left, %a2
        recv @up, %b2
        signal %full
        wait %free
        post @left, %a
        post @up, %b
        send @left, %a2
        send @up, %b2
        recv @left, %a
        recv @up, %b
        signal %full
        wait %free
      }})
        post @left, %a2
        post @up, %b2
        send @left, %a
        send @up, %b
        recv @left, %a2
        recv @up, %b2
        signal %full
        wait %free
    }})
  }}
  entry @main() {{inputs = [@a, @b], outputs = [@c]}} {{ call @gemm {{on = @mesh, row = []}} }}
}}"#, half = n/2-1)
}
fn vector() -> String {
    // 10,240 cores: 32 chips x 16 x 20? chips 0..32, 16 rows, 20 columns
    r#"dojo program 1
program @v {machine = "exapod"} {
  cores @all = [box([0, 32], [0, 16], [0, 20])]
  channel @right {from = @all, to = @all, peer = mod(i + 1, 10240)}
  segment @work() {
    %x = buffer {at = 0, role = "out"} : f32[256]
    %y = buffer {at = 1024} : f32[256]
    %z = buffer {at = 2048} : f32[256]
    comm0 ({ ^()
      fill %x {value = 1.0}
      fill %z {value = 1.0}
      for {count = 8} ({ ^(%i : index)
        post @right, %y
        send @right, %x
        recv @right, %y
        add %z, %y, %x
        mul %x, %z, %y
        add %x, %x, %z
        max %z, %x, %y
        add %x, %z, %y
      })
    })
  }
  entry @main() {inputs = [], outputs = []} { call @work {on = @all, row = []} }
}"#.to_string()
}
fn vector_only() -> String {
    vector().replace("post @right, %y", "").replace("send @right, %x","").replace("recv @right, %y", "fill %y {value = 1.0}")
}
fn comm_only() -> String {
    let v = vector();
    let i = v.find("        add %z, %y, %x").unwrap(); let j = v.find("      })\n    })").unwrap();
    format!("{}{}", &v[..i], &v[j..])
}
fn idle() -> String {
    r#"dojo program 1
program @v {machine = "exapod"} {
  cores @all = [box([0, 3000], [0, 18], [0, 20])]
  segment @work(%n : index) {
    %x = buffer {at = 0} : f32[256]
    comm0 ({ ^()
      for {count = %n} ({ ^(%i : index) fill %x {value = 1.0} })
    })
  }
  entry @main() {inputs = [], outputs = []} { call @work {on = @all, row = [mod(i, 2)]} }
}"#.to_string()
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    s.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}
fn rss() -> f64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    let l = s.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    l.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
fn peak_bf16(k: &dyn Kernels, s: usize) -> f64 {
    let f = |i: usize| bf16::from_f32((i % 97) as f32 / 48.0 - 1.0);
    let a: Vec<bf16> = (0..s*s).map(f).collect();
    let mut panels = Aligned::<bf16>::new(packed_len_bf16(s, s));
    k.pack_b_bf16(Rhs::Rows(Matrix { data: &a, stride: s }), s, s, &mut panels);
    let mut c = vec![0f32; s*s];
    let mut scratch = Scratch::default();
    let mut best = f64::MAX;
    for _ in 0..20 {
        let t = cpu();
        for _ in 0..20 {
            let p = Matmul { m: s, n: s, k: s, a: Lhs { data: &a, stride: s, transposed: false }, b: Rhs::Packed(&panels), epilogue: Epilogue::default() };
            k.matmul_bf16(&p, Output::F32 { data: &mut c, stride: s, accumulate: true }, &mut scratch);
        }
        best = best.min((cpu() - t) / 20.0);
    }
    2.0 * (s*s*s) as f64 / best / 1e9
}
fn peak_f32(k: &dyn Kernels, s: usize) -> f64 {
    let f = |i: usize| (i % 97) as f32 / 48.0 - 1.0;
    let a: Vec<f32> = (0..s*s).map(f).collect();
    let mut panels = Aligned::<f32>::new(packed_len_f32(s, s));
    k.pack_b_f32(Rhs::Rows(Matrix { data: &a, stride: s }), s, s, &mut panels);
    let mut c = vec![0f32; s*s];
    let mut scratch = Scratch::default();
    let mut best = f64::MAX;
    for _ in 0..20 {
        let t = cpu();
        for _ in 0..20 {
            let p = Matmul { m: s, n: s, k: s, a: Lhs { data: &a, stride: s, transposed: false }, b: Rhs::Packed(&panels), epilogue: Epilogue::default() };
            k.matmul_f32(&p, Output::F32 { data: &mut c, stride: s, accumulate: true }, &mut scratch);
        }
        best = best.min((cpu() - t) / 20.0);
    }
    2.0 * (s*s*s) as f64 / best / 1e9
}
fn main() {
    let which = std::env::args().nth(1).unwrap_or("all".into());
    let opts = |threads| RunOptions { threads, ..RunOptions::default() };
    if which == "idle" || which == "all" {
        let r0 = rss();
        let (p, mut e) = load(&idle());
        let t = Instant::now();
        let (s, st) = run(&p, &mut e, &[], &opts(1));
        println!("idle: {:.2} s run, {:.2} total, calls {} rss {:.0} MB (before {:.0})", s, t.elapsed().as_secs_f64(), st.calls, rss(), r0);
        let (s, _) = run(&p, &mut e, &[], &opts(2));
        println!("idle 2 threads: {:.2} s rss {:.0}", s, rss());
    }
    for (name, text) in [("vector", vector()), ("vector_only", vector_only()), ("comm_only", comm_only())] {
        if which != name && which != "all" && which != "vec" { continue }
        let (p, mut e) = load(&text);
        for threads in [1, 2] {
            let mut best = f64::MAX; let mut n = 0;
            for _ in 0..9 { let (t, s) = run(&p, &mut e, &[], &opts(threads)); best = best.min(t); n = s.instructions; }
            println!("{name} threads {threads}: {:.1} ns per instruction ({n}), {:.3} s", best * 1e9 / n as f64, best);
        }
    }
    for ty in ["bf16", "f32"] {
        if which != ty && which != "all" && which != "mesh" { continue }
        let k = detect();
        let peak = if ty == "bf16" { peak_bf16(k, 128) } else { peak_f32(k, 128) };
        let (p, mut e) = load(&mesh(ty, 16));
        let f = |i: usize| (i % 97) as f32 / 48.0 - 1.0;
        let x = if ty == "bf16" { Tensor::from_vec(&[2048, 2048], (0..2048*2048).map(|i| bf16::from_f32(f(i))).collect::<Vec<_>>()) }
            else { Tensor::from_vec(&[2048, 2048], (0..2048*2048).map(f).collect::<Vec<_>>()) };
        for threads in [1, 2] {
            let mut best = f64::MAX; let mut fl = 0;
            for _ in 0..5 { let (t, s) = run(&p, &mut e, &[x.clone(), x.clone()], &opts(threads)); best = best.min(t); fl = s.flops; }
            let g = fl as f64 / best / 1e9;
            println!("mesh {ty} threads {threads}: {g:.0} GFLOP/s, peak of the kernel {peak:.0} per thread, ratio {:.2}", g / peak / threads as f64);
        }
    }
}
