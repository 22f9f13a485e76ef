// libFuzzer's entry for the target `source`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_source(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.source(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
