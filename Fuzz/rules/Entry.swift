// libFuzzer's entry for the target `rules`.

import TrafficFuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_rules(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    TrafficFuzzTargets.rules(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
