#include "tools/io/session.hpp"

#include <optional>

#include "block/node_reopen.hpp"
#include "block/qcow2/image.hpp"
#include "block/qcow2_options.hpp"
#include "tools/io/open_image.hpp"

namespace whistler::tools::io {

bool Session::open(OpenRequest request) {
  if (is_open()) {
    complain("file open already, try 'help close'");
    return false;
  }
  auto opened = open_request(*this, std::move(request));
  if (!opened) {
    complain(opened.error().message);
    return false;
  }
  image_ = std::move(*opened);
  return true;
}

bool Session::reopen(OpenRequest request, const Options& asked) {
  const auto before = image_.request;
  const auto name = name_of_request(*this, before);
  auto joined = asked;
  join_options(joined, name->options);
  if (auto ok = check_reopen(*image_.node, asked, name->options); !ok) {
    complain(tool_text(ok.error()));
    return false;
  }
  request.joined = std::move(joined);
  close();
  auto opened = open_as_asked(*this, request);
  if (opened) {
    image_ = std::move(*opened);
    return true;
  }
  complain(tool_text(opened.error()));
  if (auto old = open_as_asked(*this, before)) {
    image_ = std::move(*old);
  }
  return false;
}

void Session::close() {
  if (!is_open()) {
    return;
  }
  drain();
  if (auto closed = wait(image_.device->close()); !closed) {
    complain(closed.error().message);
  }
  image_ = {};
}

namespace {

template <typename T>
Result<T> run_to_end(Session& session, Task<Result<T>> task) {
  std::optional<Result<T>> result;
  spawn(std::move(task), [&](Result<T> value) { result.emplace(std::move(value)); });
  while (!result) {
    session.ring().run_once(true);
  }
  return std::move(*result);
}

}  // namespace

Result<void> Session::wait(Task<Result<void>> task) {
  auto result = run_to_end(*this, std::move(task));
  turn(false);
  return result;
}

Result<BlockStatus> Session::wait(Task<Result<BlockStatus>> task) {
  return run_to_end(*this, std::move(task));
}

void Session::start(Task<Result<void>> task, std::function<void(const Result<void>&)> done) {
  ++in_flight_;
  spawn(std::move(task), [this, done = std::move(done)](Result<void> result) {
    --in_flight_;
    completed_.emplace_back([done, result = std::move(result)] { done(result); });
  });
}

void Session::turn(bool block) {
  ring_.run_once(block);
  deliver();
}

void Session::drain() {
  while (in_flight_ != 0 && ring_.in_flight() != 0) {  // what hangs at a breakpoint stays
    ring_.run_once(true);
    deliver();
  }
  deliver();
}

void Session::deliver() {
  while (!completed_.empty()) {
    const auto report = std::move(completed_.front());
    completed_.pop_front();
    report();
  }
}

}  // namespace whistler::tools::io
