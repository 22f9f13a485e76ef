// Real servers of a test's network, each with a configuration and logs of its own that go with it.

import ELF
import Foundation
import ProcessControl

/// One request as a server's own log has it.
struct LoggedRequest: Hashable { var clientPort: Int, line: String, status: Int }

/// nginx, port 80 on IPv4 and IPv6. Every request is handed whole to a second server in the same process: what that one
/// logs had arrived to its last byte.
final class Nginx: Sendable {
    let folder: TemporaryFolder
    let program: RunningProgram

    /// `location` is what answers: by default 200 and two bytes.
    init(_ machine: Machine, answer: String = "return 200 \"ok\";", extra: String = "") throws {
        folder = try TemporaryFolder("nginx")
        let at = folder.path
        // The system's mime.types and modules stay out: this is the server alone.
        let file = try folder.write(
            "nginx.conf",
            """
            daemon off; master_process off; worker_processes 1; pid \(at)/pid; error_log \(at)/error.log;
            events { worker_connections 8192; }
            http {
                log_format witness '$remote_port|$status|$request';
                log_format behind '$http_x_client_port|$status|$request';
                client_body_temp_path \(at)/body; proxy_temp_path \(at)/proxy; fastcgi_temp_path \(at)/fastcgi;
                uwsgi_temp_path \(at)/uwsgi; scgi_temp_path \(at)/scgi;
                client_max_body_size 0; client_body_in_file_only on; large_client_header_buffers 8 64k; keepalive_requests 1000000; access_log off;
                server {
                    listen 80; listen [::]:80; access_log \(at)/front.log witness;
                    location / { proxy_pass http://unix:\(at)/behind; proxy_set_header X-Client-Port $remote_port; }
                    \(extra)
                }
                server { listen unix:\(at)/behind; access_log \(at)/behind.log behind; location / { \(answer) } }
            }
            """)
        program = try machine.start(["nginx", "-p", at, "-c", file, "-e", at + "/error.log"])
        let socket = at + "/behind", pid = at + "/pid"
        try wait(for: "nginx") { FileManager.default.fileExists(atPath: socket) && FileManager.default.fileExists(atPath: pid) }
    }

    /// What it read the head of.
    var requests: [LoggedRequest] { get throws { try read("front.log") } }
    /// What it read to the last byte.
    var wholeRequests: [LoggedRequest] { get throws { try read("behind.log") } }

    /// Every body it read, decoded from its chunks, whole or not.
    var bodies: [[UInt8]] {
        get throws {
            try FileManager.default.contentsOfDirectory(atPath: folder.path + "/body").sorted().map {
                Array(try Data(contentsOf: URL(fileURLWithPath: folder.path + "/body/" + $0)))
            }
        }
    }

    private func read(_ name: String) throws -> [LoggedRequest] {
        String(decoding: (try? RegularFile.read(folder.path + "/" + name)) ?? [], as: UTF8.self).split(separator: "\n").compactMap { line in
            let words = line.split(separator: "|", maxSplits: 2, omittingEmptySubsequences: false)
            guard words.count == 3, let port = Int(words[0]), let status = Int(words[1]) else { return nil }
            return LoggedRequest(clientPort: port, line: String(words[2]), status: status)
        }
    }
}

/// Apache, port 80 on IPv4 and IPv6, one file.
final class Apache: Sendable {
    let folder: TemporaryFolder
    let program: RunningProgram

    init(_ machine: Machine) throws {
        folder = try TemporaryFolder("apache")
        let at = folder.path
        try FileManager.default.createDirectory(atPath: at + "/www", withIntermediateDirectories: true)
        _ = try folder.write("www/index.html", "ok")
        let modules = ["mpm_event", "authz_core", "unixd", "dir"].filter {
            FileManager.default.fileExists(atPath: "/usr/lib/apache2/modules/mod_\($0).so")
        }
        let file = try folder.write(
            "apache.conf",
            modules.map { "LoadModule \($0)_module /usr/lib/apache2/modules/mod_\($0).so\n" }.joined() + """
                ServerRoot \(at)
                ServerName server
                User nobody
                Group nogroup
                Listen 80
                PidFile \(at)/pid
                DefaultRuntimeDir \(at)
                DocumentRoot \(at)/www
                DirectoryIndex index.html
                FallbackResource disabled
                ErrorLog \(at)/error.log
                LogFormat "%{remote}p|%>s|%r" witness
                CustomLog \(at)/access.log witness
                KeepAlive On
                MaxKeepAliveRequests 0
                """ + "\n")
        program = try machine.start(["apache2", "-X", "-f", file])
        let pid = at + "/pid"
        try wait(for: "apache2") { FileManager.default.fileExists(atPath: pid) }
    }

    var requests: [LoggedRequest] {
        get throws {
            String(decoding: (try? RegularFile.read(folder.path + "/access.log")) ?? [], as: UTF8.self).split(separator: "\n").compactMap {
                let words = $0.split(separator: "|", maxSplits: 2, omittingEmptySubsequences: false)
                guard words.count == 3, let port = Int(words[0]), let status = Int(words[1]) else { return nil }
                return LoggedRequest(clientPort: port, line: String(words[2]), status: status)
            }
        }
    }
}

/// An application that writes down what it reads (Fixtures/network/recorder.c), and answers each head of a request.
final class Recorder: Sendable {
    let folder: TemporaryFolder
    let program: RunningProgram

    init(_ machine: Machine, port: Int = 80, options: [String] = []) throws {
        folder = try TemporaryFolder("recorder")
        program = try machine.start([try NetworkPrograms.get().path("recorder"), "\(port)", folder.path] + options)
        guard try program.readLine() == "ready" else { throw Failure("network", "the recorder did not start.") }
    }

    /// What the application read, a connection each, in the order in which they were accepted.
    var connections: [[UInt8]] {
        get throws {
            var all: [[UInt8]] = []
            while FileManager.default.fileExists(atPath: folder.path + "/\(all.count)") {
                all.append(Array(try Data(contentsOf: URL(fileURLWithPath: folder.path + "/\(all.count)"))))
            }
            return all
        }
    }

    /// How the application saw a connection end: "closed", "reset", or nil while it is open.
    func end(of connection: Int) -> String? { try? String(contentsOfFile: folder.path + "/\(connection).end", encoding: .utf8) }

    var datagrams: [String] {
        ((try? String(contentsOfFile: folder.path + "/datagrams", encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
    }
}
