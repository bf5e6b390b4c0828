// The table of commands, with the words of their help.
#include <array>

#include "tools/io/command.hpp"

namespace whistler::tools::io {

namespace {

constexpr std::array kCommands = {
    Command{"abort", nullptr, abort_command, 0, 0, true, Permission::kNone, nullptr,
            "simulate a program crash using abort(3)", nullptr},
    Command{"aio_flush", nullptr, aio_flush_command, 0, 0, false, Permission::kNone, nullptr,
            "completes all outstanding aio requests", nullptr},
    Command{"aio_read", nullptr, aio_read_command, 2, -1, false, Permission::kNone,
            "[-Ciqv] [-P pattern] off len [len..]", "asynchronously reads a number of bytes",
            "\n"
            " asynchronously reads a range of bytes from the given offset\n"
            "\n"
            " Example:\n"
            " 'aio_read -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file\n"
            "\n"
            " Reads a segment of the currently open file, optionally dumping it to the\n"
            " standard output stream (with -v option) for subsequent inspection.\n"
            " The read is performed asynchronously and the aio_flush command must be\n"
            " used to ensure all outstanding aio requests have been completed.\n"
            " Note that due to its asynchronous nature, this command will be\n"
            " considered successful once the request is submitted, independently\n"
            " of potential I/O errors or pattern mismatches.\n"
            " -C, -- report statistics in a machine parsable format\n"
            " -P, -- use a pattern to verify read data\n"
            " -i, -- treat request as invalid, for exercising stats\n"
            " -v, -- dump buffer to standard output\n"
            " -q, -- quiet mode, do not show I/O statistics\n"
            "\n"},
    Command{"aio_write", nullptr, aio_write_command, 2, -1, false, Permission::kWrite,
            "[-Cfiquz] [-P pattern] off len [len..]", "asynchronously writes a number of bytes",
            "\n"
            " asynchronously writes a range of bytes from the given offset source\n"
            " from multiple buffers\n"
            "\n"
            " Example:\n"
            " 'aio_write 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file\n"
            "\n"
            " Writes into a segment of the currently open file, using a buffer\n"
            " filled with a set pattern (0xcdcdcdcd).\n"
            " The write is performed asynchronously and the aio_flush command must be\n"
            " used to ensure all outstanding aio requests have been completed.\n"
            " Note that due to its asynchronous nature, this command will be\n"
            " considered successful once the request is submitted, independently\n"
            " of potential I/O errors or pattern mismatches.\n"
            " -P, -- use different pattern to fill file\n"
            " -C, -- report statistics in a machine parsable format\n"
            " -f, -- use Force Unit Access semantics\n"
            " -i, -- treat request as invalid, for exercising stats\n"
            " -q, -- quiet mode, do not show I/O statistics\n"
            " -u, -- with -z, allow unmapping\n"
            " -z, -- write zeroes using blk_aio_pwrite_zeroes\n"
            "\n"},
    Command{"alloc", "a", alloc_command, 1, 2, false, Permission::kNone, "offset [count]",
            "checks if offset is allocated in the file", nullptr},
    Command{"break", nullptr, break_command, 2, 2, false, Permission::kNone, "event tag",
            "sets a breakpoint on event and tags the stopped request as tag", nullptr},
    Command{"close", "c", close_command, 0, 0, false, Permission::kNone, nullptr,
            "close the current open file", nullptr},
    Command{"discard", "d", discard_command, 2, -1, false, Permission::kWrite, "[-Cq] off len",
            "discards a number of bytes at a specified offset",
            "\n"
            " discards a range of bytes from the given offset\n"
            "\n"
            " Example:\n"
            " 'discard 512 1k' - discards 1 kilobyte from 512 bytes into the file\n"
            "\n"
            " Discards a segment of the currently open file.\n"
            " -C, -- report statistics in a machine parsable format\n"
            " -q, -- quiet mode, do not show I/O statistics\n"
            "\n"},
    Command{"flush", "f", flush_command, 0, 0, false, Permission::kNone, nullptr,
            "flush all in-core file state to disk", nullptr},
    Command{"help", "?", help_command, 0, 1, true, Permission::kNone, "[command]",
            "help for one or all commands", nullptr},
    Command{"info", "i", info_command, 0, 0, false, Permission::kNone, nullptr,
            "prints information about the current file", nullptr},
    Command{"length", "l", length_command, 0, 0, false, Permission::kNone, nullptr,
            "gets the length of the current file", nullptr},
    Command{"map", nullptr, map_command, 0, 0, false, Permission::kNone, "",
            "prints the allocated areas of a file", nullptr},
    Command{"open", "o", open_command, 1, -1, true, Permission::kNone,
            "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", "open the file specified by path",
            "\n"
            " opens a new file in the requested mode\n"
            "\n"
            " Example:\n"
            " 'open -n -o driver=raw /tmp/data' - opens raw data file read-write, uncached\n"
            "\n"
            " Opens a file for subsequent use by all of the other qemu-io commands.\n"
            " -r, -- open file read-only\n"
            " -s, -- use snapshot file\n"
            " -C, -- use copy-on-read\n"
            " -n, -- disable host cache, short for -t none\n"
            " -U, -- force shared permissions\n"
            " -k, -- use kernel AIO implementation (Linux only, prefer use of -i)\n"
            " -i, -- use AIO mode (threads, native or io_uring)\n"
            " -t, -- use the given cache mode for the image\n"
            " -d, -- use the given discard mode for the image\n"
            " -o, -- options to be given to the block driver\n"},
    Command{"quit", "q", quit_command, 0, -1, true, Permission::kNone, nullptr, "exit the program", nullptr},
    Command{"read", "r", read_command, 2, -1, false, Permission::kNone,
            "[-abCqv] [-P pattern [-s off] [-l len]] off len",
            "reads a number of bytes at a specified offset",
            "\n"
            " reads a range of bytes from the given offset\n"
            "\n"
            " Example:\n"
            " 'read -v 512 1k' - dumps 1 kilobyte read from 512 bytes into the file\n"
            "\n"
            " Reads a segment of the currently open file, optionally dumping it to the\n"
            " standard output stream (with -v option) for subsequent inspection.\n"
            " -b, -- read from the VM state rather than the virtual disk\n"
            " -C, -- report statistics in a machine parsable format\n"
            " -l, -- length for pattern verification (only with -P)\n"
            " -p, -- ignored for backwards compatibility\n"
            " -P, -- use a pattern to verify read data\n"
            " -q, -- quiet mode, do not show I/O statistics\n"
            " -s, -- start offset for pattern verification (only with -P)\n"
            " -v, -- dump buffer to standard output\n"
            "\n"},
    Command{"readv", nullptr, readv_command, 2, -1, false, Permission::kNone,
            "[-Cqv] [-P pattern] off len [len..]", "reads a number of bytes at a specified offset",
            "\n"
            " reads a range of bytes from the given offset into multiple buffers\n"
            "\n"
            " Example:\n"
            " 'readv -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file\n"
            "\n"
            " Reads a segment of the currently open file, optionally dumping it to the\n"
            " standard output stream (with -v option) for subsequent inspection.\n"
            " Uses multiple iovec buffers if more than one byte range is specified.\n"
            " -C, -- report statistics in a machine parsable format\n"
            " -P, -- use a pattern to verify read data\n"
            " -v, -- dump buffer to standard output\n"
            " -q, -- quiet mode, do not show I/O statistics\n"
            "\n"},
    Command{"remove_break", nullptr, remove_break_command, 1, 1, false, Permission::kNone, "tag",
            "remove a breakpoint by tag", nullptr},
    Command{"reopen", nullptr, reopen_command, 0, -1, false, Permission::kNone,
            "[(-r|-w)] [-c cache] [-o options]", "reopens an image with new options",
            "\n"
            " Changes the open options of an already opened image\n"
            "\n"
            " Example:\n"
            " 'reopen -o lazy-refcounts=on' - activates lazy refcount writeback on a qcow2 image\n"
            "\n"
            " -r, -- Reopen the image read-only\n"
            " -w, -- Reopen the image read-write\n"
            " -c, -- Change the cache mode to the given value\n"
            " -o, -- Changes block driver options (cf. 'open' command)\n"
            "\n"},
    Command{"resume", nullptr, resume_command, 1, 1, false, Permission::kNone, "tag",
            "resumes the request tagged as tag", nullptr},
    Command{"sigraise", nullptr, sigraise_command, 1, 1, true, Permission::kNone, "signal", "raises a signal",
            "\n"
            " raises the given signal\n"
            "\n"
            " Example:\n"
            " 'sigraise 15' - raises SIGTERM\n"
            "\n"
            " Invokes raise(signal), where \"signal\" is the mandatory integer argument\n"
            " given to sigraise.\n"
            "\n"},
    Command{"sleep", nullptr, sleep_command, 1, 1, true, Permission::kNone, nullptr,
            "waits for the given value in milliseconds", nullptr},
    Command{"truncate", "t", truncate_command, 1, 3, false, Permission::kResize, "[-m prealloc_mode] off",
            "truncates the current file at the given offset", nullptr},
    Command{"wait_break", nullptr, wait_break_command, 1, 1, false, Permission::kNone, "tag",
            "waits for the suspension of a request", nullptr},
    Command{"write", "w", write_command, 2, -1, false, Permission::kWrite,
            "[-bcCfnquz] [-P pattern | -s source_file] off len",
            "writes a number of bytes at a specified offset",
            "\n"
            " writes a range of bytes from the given offset\n"
            "\n"
            " Example:\n"
            " 'write 512 1k' - writes 1 kilobyte at 512 bytes into the open file\n"
            "\n"
            " Writes into a segment of the currently open file, using a buffer\n"
            " filled with a set pattern (0xcdcdcdcd).\n"
            " -b, -- write to the VM state rather than the virtual disk\n"
            " -c, -- write compressed data with blk_write_compressed\n"
            " -f, -- use Force Unit Access semantics\n"
            " -n, -- with -z, don't allow slow fallback\n"
            " -p, -- ignored for backwards compatibility\n"
            " -P, -- use different pattern to fill file\n"
            " -s, -- use a pattern file to fill the write buffer\n"
            " -C, -- report statistics in a machine parsable format\n"
            " -q, -- quiet mode, do not show I/O statistics\n"
            " -u, -- with -z, allow unmapping\n"
            " -z, -- write zeroes using blk_co_pwrite_zeroes\n"
            "\n"},
    Command{"writev", nullptr, writev_command, 2, -1, false, Permission::kWrite,
            "[-Cfq] [-P pattern] off len [len..]", "writes a number of bytes at a specified offset",
            "\n"
            " writes a range of bytes from the given offset source from multiple buffers\n"
            "\n"
            " Example:\n"
            " 'writev 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file\n"
            "\n"
            " Writes into a segment of the currently open file, using a buffer\n"
            " filled with a set pattern (0xcdcdcdcd).\n"
            " -P, -- use different pattern to fill file\n"
            " -C, -- report statistics in a machine parsable format\n"
            " -f, -- use Force Unit Access semantics\n"
            " -q, -- quiet mode, do not show I/O statistics\n"
            "\n"},
};

}  // namespace

std::span<const Command> all_commands() { return kCommands; }

const Command* find_command(const std::string& name) {
  for (const auto& command : kCommands) {
    if (name == command.name || (command.alias != nullptr && name == command.alias)) {
      return &command;
    }
  }
  return nullptr;
}

}  // namespace whistler::tools::io
