// From a path in a process's maps to a package and its version, on a small database and on this system's own.

import Advisories
import Foundation
import Testing

@Suite struct InstalledPackagesTests {
    static let status = """
        Package: libc6
        Status: install ok installed
        Architecture: amd64
        Multi-Arch: same
        Source: glibc
        Version: 2.36-9+deb12u10
        Description: GNU C Library
         Version: not a field, a continuation

        Package: libc6
        Status: install ok installed
        Architecture: i386
        Source: glibc
        Version: 2.36-9+deb12u10

        Package: gcc
        Status: install ok installed
        Architecture: amd64
        Source: gcc-defaults (1.203)
        Version: 4:12.2.0-3

        Package: gone
        Status: deinstall ok config-files
        Architecture: amd64
        Version: 1.0

        Package: half
        Status: install ok half-configured
        Architecture: all
        Version: 2.0
        """

    let packages = InstalledPackages(status: Array(status.utf8))

    @Test func namesVersionsAndSources() {
        #expect(packages["libc6:amd64"]?.version.description == "2.36-9+deb12u10")
        #expect(packages["libc6:i386"]?.source == "glibc")
        #expect(packages["gcc"]?.sourceVersion.description == "1.203")
        #expect(packages["half"]?.name == "half", "its files are on disk, whatever its state")
    }

    @Test func noAnswerRatherThanAWrongOne() {
        #expect(packages["libc6"] == nil, "two architectures: the bare name is ambiguous")
        #expect(packages["gone"] == nil, "only its configuration files remain")
        #expect(packages["never"] == nil)
    }

    @Test func mergedUsrAliasesAreOneFile() {
        var owners = FileOwners(of: [
            "/usr/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld.so", "/usr/libexec/a", "/usr/bi",
        ])
        owners.read(list: Array("/.\n/lib/x86_64-linux-gnu/libc.so.6\n/usr/lib64/ld.so\n".utf8), of: "libc6:amd64")
        owners.read(list: Array("/usr/libexec/a\n/usr/bin".utf8), of: "other")
        #expect(owners["/usr/lib/x86_64-linux-gnu/libc.so.6"] == "libc6:amd64")
        #expect(owners["/lib64/ld.so"] == "libc6:amd64")
        #expect(owners["/usr/libexec/a"] == "other")
        #expect(owners["/usr/bi"] == nil, "a prefix of a listed path is another path")
    }

    @Test func divertedFilesBelongToWhoeverPutThemThere() {
        let table = Diversions(Array("/usr/bin/pg_config\n/usr/bin/pg_config.dev\npg-common\n".utf8))
        var owners = FileOwners(of: ["/usr/bin/pg_config", "/usr/bin/pg_config.dev"], diversions: table)
        owners.read(list: Array("/usr/bin/pg_config\n".utf8), of: "libpq-dev:amd64")
        owners.read(list: Array("/usr/bin/pg_config\n".utf8), of: "pg-common")
        #expect(owners["/usr/bin/pg_config"] == "pg-common")
        #expect(owners["/usr/bin/pg_config.dev"] == "libpq-dev:amd64")
    }

    @Test(.enabled(if: FileManager.default.fileExists(atPath: "/var/lib/dpkg/status")))
    func thisSystemsOwnDatabase() throws {
        let real = InstalledPackages(status: Array(try Data(contentsOf: URL(fileURLWithPath: "/var/lib/dpkg/status"))))
        let info = "/var/lib/dpkg/info"
        var owners = FileOwners(of: ["/usr/bin/dpkg", "/bin/sh", "/nonexistent"])
        for file in try FileManager.default.contentsOfDirectory(atPath: info) where file.hasSuffix(".list") {
            let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: info + "/" + file)))
            owners.read(list: bytes, of: String(file.dropLast(5)))
        }
        #expect(owners["/usr/bin/dpkg"] == "dpkg")
        #expect(owners["/nonexistent"] == nil)
        #expect(owners["/usr/bin/dpkg"].flatMap { real[$0] } != nil)
    }
}
