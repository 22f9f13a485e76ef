// libFuzzer's entry for the target `patch`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_patch(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.patch(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
