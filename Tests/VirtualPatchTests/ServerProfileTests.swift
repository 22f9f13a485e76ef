// The server profiles against the servers themselves, on loopback: what nginx and Apache took a path for, the engine takes it for.

import ELF
import Foundation
import ProcessControl
import Testing
import VirtualPatch

/// A server of the distribution with a configuration of its own, which tells the path that it understood.
private final class RealServer {
    let profile: ServerProfile
    let port: Int
    private let folder: String
    private let process: ChildProcess

    static func has(_ tool: String) -> Bool { FileManager.default.isExecutableFile(atPath: tool) }

    init(_ profile: ServerProfile) throws {
        self.profile = profile
        folder = FileManager.default.temporaryDirectory.path + "/fother-server-\(ProcessID.own)-\(profile.rawValue)"
        try? FileManager.default.removeItem(atPath: folder)
        try FileManager.default.createDirectory(atPath: folder + "/t", withIntermediateDirectories: true)
        port = 20_000 + (Int(ProcessID.own.value) * 7 + Int(profile.rawValue)) % 12_000
        let config: String
        let words: [String]
        if profile == .nginx {
            config = """
                daemon off; master_process off; error_log stderr crit; pid \(folder)/pid;
                events { worker_connections 64; }
                http {
                  access_log off; client_body_temp_path \(folder)/t; proxy_temp_path \(folder)/t; fastcgi_temp_path \(folder)/t;
                  uwsgi_temp_path \(folder)/t; scgi_temp_path \(folder)/t;
                  server { listen 127.0.0.1:\(port); location / { add_header X-Path "<$uri>" always; return 200 "ok"; } }
                }
                """
            words = ["/usr/sbin/nginx", "-c", folder + "/conf", "-p", folder]
        } else {
            let modules = ["mpm_event", "authz_core", "headers", "rewrite"]
                .map { "LoadModule \($0)_module /usr/lib/apache2/modules/mod_\($0).so" }.joined(separator: "\n")
            config = """
                ServerRoot \(folder)
                ServerName localhost
                Listen 127.0.0.1:\(port)
                PidFile \(folder)/pid
                ErrorLog /dev/null
                User nobody
                Group nogroup
                \(modules)
                ErrorDocument 200 ok
                Header always set X-Path "expr=<%{REQUEST_URI}>"
                RewriteEngine on
                RewriteRule ^ - [R=200]
                """
            words = ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", folder + "/conf"]
        }
        try config.write(toFile: folder + "/conf", atomically: true, encoding: .utf8)
        process = try ChildProcess(words)
        for _ in 0..<100 {
            if (try? send(Array("GET / HTTP/1.0\r\n\r\n".utf8)))?.isEmpty == false { return }
            try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            Thread.sleep(forTimeInterval: 0.05)
        }
        stop()
        throw Failure("test-server", "\(words[0]) did not answer")
    }

    func stop() {
        process.signal(15)
        _ = try? process.wait(timeout: .seconds(10))
        try? FileManager.default.removeItem(atPath: folder)
    }

    /// The bytes of the answer to these bytes.
    func send(_ bytes: [UInt8]) throws -> [UInt8] {
        let script = "exec 3<>/dev/tcp/127.0.0.1/\(port) || exit 1; cat >&3; timeout 3 cat <&3"
        return try ChildProcess.run(["bash", "-c", script], input: bytes).output
    }

    /// The path that the server says it understood; nil: it refused the request.
    func path(_ target: String) throws -> [UInt8]? {
        let answer = try send(Array("GET \(target) HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".utf8))
        guard answer.starts(with: Array("HTTP/1.1 200".utf8)) else { return nil }
        let mark = Array("X-Path: <".utf8)
        guard let at = answer.indices.first(where: { answer[$0...].starts(with: mark) }) else { return nil }
        return Array(answer[(at + mark.count)...].prefix { $0 != UInt8(ascii: ">") })
    }
}

@Suite(.serialized) struct ServerProfileTests {
    /// Slashes, dots, escapes, backslashes, plus signs, bytes that end strings elsewhere, and a whole address.
    static let targets = [
        "/", "/a%20b", "/a//b", "//a", "/a///b//", "/a/./b", "/a/../b", "/a/%2e%2e/b", "/a/.%2e/b", "/a%2f..%2fb", "/a%2fb", "/a%2Fb",
        "/a/%2e/b", "/a%5cb", "/a\\b", "/a\\..\\b", "/a/..%5cb", "/a+b", "/%41%62", "/a%00b", "/a%2500", "/a%252fb", "/a;b=c/d",
        "/a;/../b", "/a%u0041", "/a%zz", "/a%4", "/../b", "/a/../../b", "/a/..", "/a/.", "/a/b/", "/A/B", "/a%c3%a9", "/a%ff",
        "http://a/b//c", "/a?x=//y/../z", "/a%3fb", "/a%23b", "/...", "/a/.../b", "/a%0ab", "/a%09b", "/%2e%2e/b", "/a%2e%2e/b",
    ]

    private func check(_ profile: ServerProfile) throws -> String {
        let server = try RealServer(profile)
        defer { server.stop() }
        var wrong: [String] = []
        var judged = 0, refused: [String] = []
        for target in Self.targets {
            guard let path = try server.path(target) else {
                refused.append(target)
                continue
            }
            judged += 1
            let hex = path.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined(separator: " ")
            let query = target.contains("?") ? "content:\"?\"; distance:0; within:1;" : "endswith;"
            let rule =
                "drop http any any -> any any (flow:to_server; http.uri; content:\"|\(hex)|\"; startswith; \(query) sid:1;)"
            let judge = try engine(rule) {
                $0.profile = profile
                $0.isStrict = true
            }
            let outcome = judge.inspect(request: Array("GET \(target) HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
            if ids(outcome).isEmpty {
                wrong.append("\(target): the server saw \(String(decoding: path, as: UTF8.self)), the engine did not")
            }
        }
        print("\(profile): \(judged) paths compared, \(refused.count) refused by the server: \(refused.joined(separator: " "))")
        #expect(judged >= 25)
        return wrong.joined(separator: "\n")
    }

    @Test(.enabled(if: RealServer.has("/usr/sbin/nginx"), "nginx is not installed")) func nginxReadsPathsAsItsProfileDoes() throws {
        let wrong = try check(.nginx)
        #expect(wrong.isEmpty, "\(wrong)")
    }

    @Test(.enabled(if: RealServer.has("/usr/sbin/apache2"), "apache2-bin is not installed")) func apacheReadsPathsAsItsProfileDoes() throws
    {
        let wrong = try check(.apache)
        #expect(wrong.isEmpty, "\(wrong)")
    }

    /// Paths came out in small letters from some profiles: rules with capital letters in them never matched.
    @Test(arguments: ServerProfile.allCases) func capitalLettersStay(_ profile: ServerProfile) throws {
        let judge = try engine("drop http any any -> any any (flow:to_server; http.uri; content:\"/VhttpdMgr?A=\"; startswith; sid:1;)") {
            $0.profile = profile
            $0.isStrict = true
        }
        #expect(ids(judge.inspect(request: Array("GET /VhttpdMgr?A=B HTTP/1.1\r\nHost: a\r\n\r\n".utf8))) == ["1"])
        #expect(ids(judge.inspect(request: Array("GET /vhttpdmgr?A=B HTTP/1.1\r\nHost: a\r\n\r\n".utf8))).isEmpty)
    }

    /// There is no IIS here: what Microsoft documents of HTTP.sys (canonical paths, `%uNNNN` unless PercentUAllowed is 0), written out.
    @Test(arguments: [
        "/a/evil", "/a\\evil", "/a%2fevil", "/a%5cevil", "/a%5Cevil", "/a/b/../evil", "/a/b\\..\\evil", "/a/./evil", "/a/%65vil",
        "/a/%u0065vil", "/a%u002fevil", "/a%u005Cevil", "/x/%u002e%u002e/a/evil",
    ])
    func iisReadsPathsAsItIsDocumented(_ target: String) throws {
        let judge = try engine("drop http any any -> any any (flow:to_server; http.uri; content:\"/a/evil\"; startswith; endswith; sid:1;)")
        {
            $0.profile = .iis
            $0.isStrict = true
        }
        #expect(ids(judge.inspect(request: Array("GET \(target) HTTP/1.1\r\nHost: a\r\n\r\n".utf8))) == ["1"])
    }

    /// Bodies in chunks, well formed and not: a body that a server takes is read, or said to be unreadable.
    @Test(.enabled(if: RealServer.has("/usr/sbin/nginx") && RealServer.has("/usr/sbin/apache2"), "nginx or apache2-bin is not installed"))
    func chunksThatServersTakeAreReadOrSaid() throws {
        let bodies = [
            "4\r\nEVIL\r\n0\r\n\r\n", "2\r\nEV\r\n2\r\nIL\r\n0\r\n\r\n", "0004\r\nEVIL\r\n0\r\n\r\n", "4;x=y\r\nEVIL\r\n0\r\n\r\n",
            "4 \r\nEVIL\r\n0\r\n\r\n", " 4\r\nEVIL\r\n0\r\n\r\n", "4\nEVIL\n0\n\n", "4\r\nEVIL\r\n0\r\nX: y\r\n\r\n",
            "4;\r\nEVIL\r\n0\r\n\r\n",
            "4\t\r\nEVIL\r\n0\r\n\r\n", "+4\r\nEVIL\r\n0\r\n\r\n", "0x4\r\nEVIL\r\n0\r\n\r\n", "4\r\nEVIL\r\n00\r\n\r\n",
        ]
        for profile in [ServerProfile.nginx, .apache] {
            let server = try RealServer(profile)
            defer { server.stop() }
            var taken = 0
            for body in bodies {
                let request = Array("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\(body)".utf8)
                guard try server.send(request).starts(with: Array("HTTP/1.1 200".utf8)) else { continue }
                taken += 1
                let judge = try engine("drop http any any -> any any (flow:to_server; http.request_body; content:\"EVIL\"; sid:1;)") {
                    $0.profile = profile
                }
                let outcome = judge.inspect(request: request)
                #expect(!outcome.findings.isEmpty, "\(profile) takes \(body.debugDescription); the engine says nothing")
            }
            #expect(taken >= 4)
        }
    }
}
