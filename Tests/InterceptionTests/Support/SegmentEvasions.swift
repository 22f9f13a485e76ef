// Evasions by what TCP segments say: their order, their overlaps, and segments that only a filter might believe.

extension Evasion {
    static let segments: [Evasion] =
        order + overlaps + insertions + ends + [
            Evasion(name: "urgent byte that the application skips", stream: exploit) { a in
                try a.connect()
                // The pointer names the byte after the urgent one: X, which is not part of what is read.
                let bytes = Array(exploit[..<7]) + [88] + exploit[7...]
                try a.send(0, bytes, [.push, .ack, .urgent]) { $0.urgentPointer = 8 }
                try a.listen(.milliseconds(30))
            },
            Evasion(name: "urgent byte that the application reads in line", application: ["--inline-urgent"]) { a in
                try a.connect()
                try a.send(0, exploit, [.push, .ack, .urgent]) { $0.urgentPointer = 8 }
            },
            Evasion(name: "urgent pointer beyond the segment, urgent byte later") { a in
                try a.connect()
                let bytes = Array(exploit[..<7]) + [88] + exploit[7...]
                try a.send(0, bytes[..<4], [.push, .ack, .urgent]) { $0.urgentPointer = 8 }
                try a.send(4, bytes[4...])
                try a.listen(.milliseconds(30))
            },
            Evasion(name: "exploit in the handshake's last segment") { a in try a.connect(exploit) },
            Evasion(name: "sequence numbers wrap inside the exploit") { a in
                a.start = UInt32.max - 8
                try a.connect()
                try a.send(0, exploit)
            },
            Evasion(name: "another initial number before the connection's own") { a in
                let mine = a.start
                a.start = mine &- 500_000
                try a.sendSYN()
                try a.listen()
                try a.send(0, [], .reset)
                a.start = mine
                a.acknowledgement = 0
                try a.connect()
                try a.send(0, exploit)
            },
            Evasion(name: "a SYN with another initial number in the connection") { a in
                try a.connect()
                let mine = a.start
                a.start = mine &+ 700_000
                try a.sendSYN()
                try a.send(0, decoy)
                a.start = mine
                try a.send(0, exploit)
            },
            Evasion(name: "a SYN with an initial number inside the window") { a in
                try a.connect()
                try a.send(4, [], .syn)
                try a.send(3, decoy[4...], [.syn, .push, .ack])
                try a.send(0, exploit)
            },
            Evasion(name: "a second connection from the same port") { a in
                try a.connect()
                try a.send(0, decoy)
                try a.listen(.milliseconds(30))
                try a.send(decoy.count, [], [.fin, .ack])
                try a.listen(.milliseconds(30))
                try a.send(decoy.count + 1, [], .ack)
                try a.listen(.milliseconds(30))
                let second = Attack(after: a)
                try second.connect()
                try second.send(0, exploit)
                try second.insist(on: exploit)
            },
        ]

    private static let order: [Evasion] = [
        Evasion(name: "one segment") { a in
            try a.connect()
            try a.send(0, exploit)
        },
        Evasion(name: "a segment for each byte") { a in
            try a.connect()
            for (i, byte) in exploit.enumerated() { try a.send(i, [byte]) }
        },
        Evasion(name: "a segment for each byte, last first") { a in
            try a.connect()
            for (i, byte) in exploit.enumerated().reversed() { try a.send(i, [byte]) }
        },
        Evasion(name: "second half first") { a in
            try a.connect()
            try a.send(7, exploit[7...])
            try a.send(0, exploit[..<7])
        },
        Evasion(name: "every segment twice") { a in
            try a.connect()
            for at in stride(from: 0, to: exploit.count, by: 3) {
                for _ in 0..<2 { try a.send(at, exploit[at..<min(at + 3, exploit.count)]) }
            }
        },
        Evasion(name: "with timestamps, and then without") { a in
            a.clock = 5000
            try a.connect()
            try a.send(0, exploit) { $0.options = [] }
        },
        Evasion(name: "behind a request that is answered") { a in
            try a.connect()
            try a.send(0, decoy)
            try a.listen(.milliseconds(30))
            try a.send(decoy.count, exploit)
            try a.insist(on: decoy + exploit)
        },
        Evasion(name: "exploit with FIN") { a in
            try a.connect()
            try a.send(0, exploit, [.push, .ack, .fin])
        },
    ]

    /// Both ways: whichever copy a filter keeps, one of two rows punishes it unless the application's kernel is bound to it.
    private static let overlaps: [Evasion] = [
        Evasion(name: "decoy queued out of order, exploit over it", reaches: false) { a in
            try a.connect()
            try a.send(5, decoy[5...])
            try a.send(5, exploit[5...])
            try a.send(0, exploit[..<5])
        },
        Evasion(name: "exploit queued out of order, decoy over it") { a in
            try a.connect()
            try a.send(5, exploit[5...])
            try a.send(5, decoy[5...])
            try a.send(0, exploit[..<5])
        },
        Evasion(name: "decoy's middle queued, a longer exploit over it") { a in
            try a.connect()
            try a.send(5, decoy[5..<9])
            try a.send(4, exploit[4...])
            try a.send(0, exploit[..<4])
        },
        Evasion(name: "exploit's middle queued, a longer decoy over it", reaches: false) { a in
            try a.connect()
            try a.send(5, exploit[5..<9])
            try a.send(4, decoy[4...])
            try a.send(0, exploit[..<4])
        },
        Evasion(name: "exploit overlaps a queued decoy from the left") { a in
            try a.connect()
            try a.send(8, decoy[8...])
            try a.send(3, exploit[3..<12])
            try a.send(0, decoy[..<5])
        },
        Evasion(name: "decoy overlaps a queued exploit from the left", reaches: false) { a in
            try a.connect()
            try a.send(7, exploit[7...])
            try a.send(3, decoy[3..<12])
            try a.send(0, exploit[..<7])
        },
        Evasion(name: "decoy overlaps a queued exploit from the right") { a in
            try a.connect()
            try a.send(3, exploit[3..<9])
            try a.send(7, decoy[7...])
            try a.send(0, exploit[..<5])
        },
        Evasion(name: "exploit overlaps a queued decoy from the right", reaches: false) { a in
            try a.connect()
            try a.send(3, decoy[3..<8])
            try a.send(5, exploit[5...])
            try a.send(0, exploit[..<5])
        },
        Evasion(name: "half delivered, then sent again as the decoy with the rest") { a in
            try a.connect()
            try a.send(0, exploit[..<7])
            try a.listen()
            try a.send(0, decoy[..<7] + exploit[7...])
        },
        Evasion(name: "decoy's half delivered, then sent again as the exploit", reaches: false) { a in
            try a.connect()
            try a.send(0, decoy[..<9])
            try a.listen()
            try a.send(0, exploit)
        },
        Evasion(name: "exploit delivered but for its end, then sent again as the decoy") { a in
            try a.connect()
            try a.send(0, exploit[..<(exploit.count - 2)])
            try a.listen()
            try a.send(0, decoy)
        },
    ]
}
