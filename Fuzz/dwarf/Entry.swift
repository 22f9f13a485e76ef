// libFuzzer's entry for the target `dwarf`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_dwarf(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.dwarf(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
