#include "base/frame_memory.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

using namespace whistler;

TEST_CASE("frame_memory_gives_blocks_of_the_size_asked_for_apart_from_each_other", "[frame_memory]") {
  const std::size_t sizes[] = {1, 127, 128, 129, 2000, 2048, 2049, 100'000};
  for (int round = 0; round < 3; ++round) {  // from the heap, then from what was kept
    std::vector<std::pair<unsigned char*, std::size_t>> blocks;
    for (int i = 0; i < 100; ++i) {
      for (const auto bytes : sizes) {
        auto* const block = static_cast<unsigned char*>(frame_memory::take(bytes));
        std::memset(block, static_cast<int>(blocks.size() & 0xff), bytes);
        blocks.emplace_back(block, bytes);
      }
    }
    bool intact = true;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const auto [block, bytes] = blocks[i];
      intact = intact && block[0] == (i & 0xff) && block[bytes - 1] == (i & 0xff);
      frame_memory::give(block, bytes);
    }
    CHECK(intact);
  }
}

TEST_CASE("frame_memory_keeps_no_more_than_it_says_and_gives_it_again", "[frame_memory]") {
  if constexpr (frame_memory::kPooled) {
    const auto before = frame_memory::store.kept[3];
    std::vector<void*> blocks;
    for (unsigned i = 0; i < 2 * frame_memory::kMostKept; ++i) {
      blocks.push_back(frame_memory::take(400));
    }
    CHECK(frame_memory::store.kept[3] <= before);
    for (auto* block : blocks) {
      frame_memory::give(block, 400);
    }
    CHECK(frame_memory::store.kept[3] == frame_memory::kMostKept);
    void* const again = frame_memory::take(512);  // the same size class
    CHECK(std::set<void*>(blocks.begin(), blocks.end()).contains(again));
    frame_memory::give(again, 512);
  } else {
    void* const block = frame_memory::take(400);
    frame_memory::give(block, 400);
    CHECK(frame_memory::store.kept[3] == 0);
  }
}

TEST_CASE("frame_memory_of_one_thread_may_be_freed_on_another_which_ends", "[frame_memory]") {
  void* const block = frame_memory::take(300);
  std::uint32_t kept = 0;
  std::thread([&] {
    frame_memory::give(block, 300);
    kept = frame_memory::store.kept[2];
  }).join();
  CHECK(kept == (frame_memory::kPooled ? 1 : 0));
}
