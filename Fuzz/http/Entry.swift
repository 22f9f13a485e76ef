// libFuzzer's entry for the target `http`.

import FuzzTargets

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz_http(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    FuzzTargets.http(unsafe Array(UnsafeBufferPointer(start: data, count: size)))
    return 0
}
