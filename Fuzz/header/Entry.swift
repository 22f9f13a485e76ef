// libFuzzer's entry for the target `header`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_header(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.header(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
