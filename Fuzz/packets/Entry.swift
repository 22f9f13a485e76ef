// libFuzzer's entry for the target `packets`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_packets(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.packets(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
