// What the commands of `whistler io` act on: the open image, and the requests in flight.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/task.hpp"
#include "block/block_device.hpp"
#include "block/node.hpp"
#include "block/uring/ring.hpp"
#include "tools/tool.hpp"

namespace whistler::tools::io {

/// How an image is asked for: on the command line, by `open`, and by `reopen`.
struct OpenRequest {
  /// A file name, or with `image_options` a description (driver=qcow2,file.filename=...). None: nothing.
  std::string name = {};
  bool named = false;
  std::string format = {};
  bool image_options = false;
  std::vector<std::string> options = {};  ///< of `open -o`: each driver=...,KEY=VALUE
  bool read_only = false;
  bool snapshot = false;
  bool copy_on_read = false;
  bool force_share = false;
  bool native_aio = false;
  CacheMode cache = CacheMode::kWriteback;
  bool discard = true;
  /// After reopen: all options, instead of `options` and those within `name`.
  std::optional<Options> joined = {};
};

/// An image with the handles the commands need beyond those of a device.
struct OpenedImage {
  std::unique_ptr<BlockDevice> device;
  std::unique_ptr<Node> node;
  std::string format;             ///< its driver: "qcow2", "raw"
  qcow2::Image* qcow2 = nullptr;  ///< within `device`, if it is one
  OpenRequest request;
};

/// Not for two threads. Requests run while a command waits; what they print comes out then, never in the
/// middle of another command.
class Session {
 public:
  Session(const Call& call, Ring& ring) : call_(call), ring_(ring) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { close(); }

  /// Splits and runs one line. False if the command failed.
  bool run(const std::string& line);
  [[nodiscard]] bool quit() const { return quit_; }
  void set_quit() { quit_ = true; }

  /// Complains, with the name of the tool in front, when it cannot be opened.
  bool open(OpenRequest request);
  /// The same image in another way: `asked` are the options that are to change. If that cannot be, all stays
  /// as it was.
  bool reopen(OpenRequest request, const Options& asked);
  /// Waits for what is in flight, flushes and lets go of the image.
  void close();
  [[nodiscard]] bool is_open() const { return image_.device != nullptr; }
  [[nodiscard]] OpenedImage& image() { return image_; }
  [[nodiscard]] BlockDevice& device() { return *image_.device; }

  [[nodiscard]] Ring& ring() { return ring_; }
  [[nodiscard]] const Call& call() const { return call_; }
  void complain(std::string_view message) const { tools::complain(call_, message); }

  void set_misaligned(bool misaligned) { misaligned_ = misaligned; }
  [[nodiscard]] bool misaligned() const { return misaligned_; }

  /// Runs `task` to its end; what asynchronous requests have to say by then is said first.
  Result<void> wait(Task<Result<void>> task);
  Result<BlockStatus> wait(Task<Result<BlockStatus>> task);
  /// Starts `task`; `done` is called with its result while some later command waits, or by drain().
  void start(Task<Result<void>> task, std::function<void(const Result<void>&)> done);
  /// Waits for all that start() has begun.
  void drain();
  /// Goes on with what has completed by now; may block for one completion.
  void turn(bool block);
  [[nodiscard]] bool busy() const { return in_flight_ != 0; }

 private:
  void deliver();

  const Call& call_;
  Ring& ring_;
  OpenedImage image_;
  bool quit_ = false;
  bool misaligned_ = false;
  std::size_t in_flight_ = 0;
  std::deque<std::function<void()>> completed_;
};

}  // namespace whistler::tools::io
