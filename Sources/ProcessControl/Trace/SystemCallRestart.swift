// Keeps a stop invisible to a thread that was blocked in a system call: decides what the kernel does when it goes on.

/// The kernel restarts most interrupted system calls by itself. Two cases need a hand:
///
/// - Some calls return EINTR on any interruption (epoll_wait, recv with a timeout, sigtimedwait, semop,
///   io_uring_enter). Turning the result into ERESTARTNOHAND lets the kernel decide anew: restart when there was no
///   signal, EINTR when there is one by now. Instruction pointer and call number must stay as they are: rewinding
///   them here would lose the wake-up by a real signal that arrived during the stop.
/// - Calls with a relative timeout are continued by another system call, restart_syscall. A seccomp filter sees that
///   one, and may kill the thread for it. Such a thread repeats the original call instead, whose timeout then
///   starts again.
enum SystemCallRestart {
    static let interrupted: Int64 = -4
    static let restartNoHand: Int64 = -514
    static let restartBlock: Int64 = -516

    /// Calls that lose nothing by being repeated after EINTR: they report it only when nothing was done. `close` is
    /// the warning example: it returns EINTR with the descriptor closed, and its number may belong to another file
    /// by now.
    static let repeatable: Set<Int64> = [
        0, 1, 19, 20,  // read, write, readv, writev: sockets with a timeout
        42, 43, 288,  // connect, accept, accept4
        44, 45, 46, 47, 299, 307,  // sendto, recvfrom, sendmsg, recvmsg, recvmmsg, sendmmsg
        65, 220,  // semop, semtimedop
        128,  // rt_sigtimedwait
        208, 333,  // io_getevents, io_pgetevents
        232, 281, 441,  // epoll_wait, epoll_pwait, epoll_pwait2
        426,  // io_uring_enter
    ]

    /// Whether a result register says that the call was waiting and was interrupted: ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND,
    /// ERESTART_RESTARTBLOCK, or EINTR.
    static func isInterrupted(_ result: Int64) -> Bool { [-512, -513, restartNoHand, restartBlock, interrupted].contains(result) }

    /// What the result register must become, or nil when it is right as it is. `number` is the call's number, or
    /// negative when the thread is not at the end of a system call.
    static func correctedResult(_ result: Int64, of number: Int64, underFilter: Bool) -> Int64? {
        if number < 0 { return nil }
        if result == interrupted, repeatable.contains(number) { return restartNoHand }
        if result == restartBlock, underFilter { return restartNoHand }
        return nil
    }
}
