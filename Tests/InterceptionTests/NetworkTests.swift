// The network of these tests itself: what is sent arrives, on both versions, and the servers' logs say so.

import Testing

extension InterceptionTests {
    @Suite struct NetworkTests {
        @Test(arguments: [0, 1, 2]) func aRequestArrivesThroughAnyNumberOfRouters(routers: Int) throws {
            let network = try Network(routers: routers)
            let nginx = try Nginx(network.server)
            for address in [network.serverAddress, network.serverAddress6] {
                let talk = try Talk(network.client, to: address)
                try talk.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
                let answer = try talk.expect(1)
                #expect(answer.statuses == [200])
                #expect(answer.state == "open")
                let expected = LoggedRequest(clientPort: try #require(talk.port), line: "GET /hello HTTP/1.1", status: 200)
                try wait(for: "request in nginx's log") { try nginx.requests.contains(expected) }
            }
        }

        @Test func apacheAndTheRecorderSayWhatTheyRead() throws {
            let network = try Network()
            let apache = try Apache(network.server)
            let recorder = try Recorder(network.server, port: 81)
            let talk = try Talk(network.client, to: network.serverAddress6)
            try talk.sendByteByByte("GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(try talk.expect(1).statuses == [200])
            try wait(for: "request in apache's log") { try apache.requests.map(\.line) == ["GET /index.html HTTP/1.1"] }
            let second = try Talk(network.client, to: network.serverAddress, port: 81)
            try second.send("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
            #expect(try second.expect(2).statuses == [200, 200])
            #expect(try recorder.connections == [Array("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n".utf8)])
            try second.half()
            #expect(try second.expect(0).state == "closed")
            try wait(for: "end of the connection") { recorder.end(of: 0) == "closed" }
        }
    }
}
