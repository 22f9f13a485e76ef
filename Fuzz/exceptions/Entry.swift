// libFuzzer's entry for the target `exceptions`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_exceptions(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.exceptions(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
