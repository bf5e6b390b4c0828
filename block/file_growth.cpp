// A file that grows under O_DIRECT. File systems let direct writes inside a file run together, but those that
// make it longer wait for each other, each for the disk. So the file is made longer in large steps ahead of
// the writes, and cut back to what was written when it is closed. After a crash it stays longer: there is
// nothing but zeroes behind what was written.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "block/file.hpp"

namespace whistler {

Task<void> FileDevice::grow_ahead(std::uint64_t end) {
  while (expect_growth_ && end > host_size_) {
    if (growing_) {
      co_await grown_.wait();
      continue;
    }
    growing_ = true;
    const auto begin = host_size_;
    const auto longer = align_up(end, kMostSpaceAhead);
    if (within_file_size_limit(longer) && co_await allocate(0, begin, longer - begin) == 0) {
      host_size_ = std::max(host_size_, longer);
    } else {  // no space for that much, or not offered here: every write makes its own room
      expect_growth_ = false;
      host_size_ = std::max(host_size_, length_of(fd_).value_or(0));  // it may have found some
    }
    growing_ = false;
    grown_.wake_all();
  }
}

void FileDevice::cut_back() {
  give_back_space();
  if (fd_ >= 0 && host_size_ > size_ && ::ftruncate(fd_, static_cast<off_t>(size_)) == 0) {
    host_size_ = size_;
  }
}

}  // namespace whistler
