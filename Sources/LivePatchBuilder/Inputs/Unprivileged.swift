// Tools that read what strangers wrote, or run it: as nobody, without the network, with limits, where this process can see to
// that. What they leave behind belongs to nobody and is read as any outsider's bytes are.

import ELF
import Foundation
import ProcessControl

enum Unprivileged {
    /// Debian's `nobody` and `nogroup`.
    static let user = 65534
    static let cpuSecondsMax = 3600
    static let fileBytesMax = 4 << 30

    static var isNeeded: Bool { geteuid() == 0 }

    /// `words` as this process should run them. Without root it is unprivileged already; without CAP_SYS_ADMIN the network
    /// stays.
    static func command(_ words: [String]) -> [String] {
        let limits = ["prlimit", "--core=0", "--cpu=\(cpuSecondsMax)", "--fsize=\(fileBytesMax)", "--"]
        guard isNeeded else { return limits + words }
        let identity = ["setpriv", "--reuid=\(user)", "--regid=\(user)", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--"]
        return (canLeaveNetwork ? ["unshare", "--net", "--"] : []) + identity + limits + words
    }

    static let canLeaveNetwork: Bool = (try? ChildProcess.run(["unshare", "--net", "true"]))?.status.isSuccess ?? false

    /// A new folder that such tools may write into. The caller removes it.
    static func folder() throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("fother-work-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
        try give(path)
        return path
    }

    static func give(_ path: String) throws {
        guard isNeeded else { return }
        try FileManager.default.setAttributes([.ownerAccountID: user, .groupOwnerAccountID: user], ofItemAtPath: path)
    }
}
