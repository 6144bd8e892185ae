//! smoke
#[test]
fn smoke() {
    let src = r#"
// line comment
dojo graph 1
module @resnet18 {producer = "x"} {
  weight @fc.w : f32[1000, 512] = external("weights.bin", 1024, 2048000)
  weight @eps : f32[] = dense(1e-5)
  weight @"onnx::w/1" : i64[2] = dense([1, -2])
  state @k : f32[2, 4] = zeros
  func @main(%x : f32[n<=128, 3], %"in put" : i64[]) -> (%y : f32[n<=128, 3] aliases @k, %out : bool[]) {k = v} {
    %4, %5 = name %x, @w, %1 {strides = [1, 2], f = 1.5, dt = f32, s = "str", ok = true, shape = dims[n, 2*n+1, (n+1)/2]} (
        { ^(%a : f32[2], %b : i64[]) %q = add %a, %b : f32[2]  yield %q },      // regions
        { ^() yield @w }
    ) : f32[1, 3], i64[2]   loc("node name", "file.onnx":12)
    return %4, %5
  }
}
"#;
    let p = dojoc_grammar::parse(src);
    assert_eq!(p.errors, []);
    assert_eq!(p.tree.items().len(), 1);
}
