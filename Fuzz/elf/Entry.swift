// libFuzzer's entry for the target `elf`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_elf(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.elf(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
