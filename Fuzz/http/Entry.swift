// libFuzzer's entry for the target `http`.

import TrafficFuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_http(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    TrafficFuzzTargets.http(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
