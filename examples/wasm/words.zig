//! Counts the words of a text that is sent, as JSON:
//!
//!     curl --data-binary @letter.txt http://words.localhost:8642/
//!
//! By the CGI convention (RFC 3875): the text comes on standard input, what is printed is the answer, headers first.
const std = @import("std");

const bytes_max = 4 << 20;
const html =
    \\<!doctype html><meta charset="utf-8"><title>Words</title>
    \\<form method="post" enctype="text/plain"><textarea name="text" rows="12" cols="72"></textarea><br><button>Count</button></form>
    \\
;

/// What a text consists of. A word is what stands between white space.
const Counts = struct {
    words: usize = 0,
    lines: usize = 0,
    characters: usize = 0,

    fn of(text: []const u8) Counts {
        var counts = Counts{};
        var between = true;
        for (text) |byte| {
            const white = std.ascii.isWhitespace(byte);
            if (between and !white) counts.words += 1;
            between = white;
            if (byte == '\n') counts.lines += 1;
            // The bytes of a character in UTF-8 but its first begin with 10.
            if (byte & 0xc0 != 0x80) counts.characters += 1;
        }
        if (text.len > 0 and text[text.len - 1] != '\n') counts.lines += 1;
        return counts;
    }
};

pub fn main() !void {
    const memory = std.heap.wasm_allocator;
    var space: [1024]u8 = undefined;
    var out = std.fs.File.stdout().writer(&space);
    const answer = &out.interface;
    const method = std.process.getEnvVarOwned(memory, "REQUEST_METHOD") catch "GET";
    if (!std.mem.eql(u8, method, "POST")) {
        try answer.print("Content-Type: text/html; charset=utf-8\n\n{s}", .{html});
        return answer.flush();
    }
    const text = std.fs.File.stdin().readToEndAlloc(memory, bytes_max) catch {
        try answer.print("Status: 413 Content Too Large\nContent-Type: text/plain\n\nAt most 4 MiB.\n", .{});
        return answer.flush();
    };
    const counts = Counts.of(text);
    try answer.print("Content-Type: application/json\n\n", .{});
    try answer.print("{{\"words\":{d},\"lines\":{d},\"characters\":{d}}}\n", .{ counts.words, counts.lines, counts.characters });
    return answer.flush();
}

test "words, lines and characters" {
    try std.testing.expectEqual(Counts{ .words = 3, .lines = 2, .characters = 12 }, Counts.of("Grüß dich,\nÖ"));
    try std.testing.expectEqual(Counts{}, Counts.of(""));
}
