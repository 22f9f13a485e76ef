// libFuzzer's entry for the target `packets`.

import TrafficFuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_packets(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    TrafficFuzzTargets.packets(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
