#include "firmware/direct_boot.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <random>

#include "base/bytes.hpp"
#include "firmware/bios.hpp"
#include "firmware/byte_builder.hpp"
#include "firmware/test_ram.hpp"

using namespace whistler;

namespace {

using ByteVector = std::vector<std::uint8_t>;
constexpr const char* kDebianKernel =
    "/usr/lib/debian-installer/images/12/i386/text/debian-installer/i386/linux";

MachineFacts facts_with(std::uint64_t ram) {
  MachineFacts facts;
  facts.ram_below_4g = ram;
  return facts;
}

/// The smallest kernel that follows boot protocol 2.12: four set-up sectors and 1 KiB of code.
ByteVector small_linux() {
  ByteVector file(512 * 5 + 1024, 0x90);
  std::fill_n(file.begin(), 512 * 5, std::uint8_t{0});
  file[0x1F1] = 4;
  store_le<std::uint32_t>(&file[0x1F4], 1024 / 16);
  store_le<std::uint16_t>(&file[0x1FE], 0xAA55);
  file[0x200] = 0xEB;
  file[0x201] = 0x66;
  store_le<std::uint32_t>(&file[0x202], 0x53726448);
  store_le<std::uint16_t>(&file[0x206], 0x20C);
  file[0x211] = 1;
  store_le<std::uint32_t>(&file[0x22C], 0x7FFFFFFF);
  store_le<std::uint32_t>(&file[0x238], 2047);
  store_le<std::uint64_t>(&file[0x258], 0x100000);
  store_le<std::uint32_t>(&file[0x260], 0x100000);
  return file;
}

/// An ELF32 with a Multiboot header at 0x100 and one segment of 16 bytes (32 in memory) at 1 MiB.
ByteVector small_multiboot() {
  ByteVector file(0x200);
  store_le<std::uint32_t>(&file[0], 0x464C457F);
  file[4] = 1;
  file[5] = 1;
  store_le<std::uint16_t>(&file[16], 2);
  store_le<std::uint16_t>(&file[18], 3);
  store_le<std::uint32_t>(&file[24], 0x100004);
  store_le<std::uint32_t>(&file[28], 52);
  store_le<std::uint16_t>(&file[42], 32);
  store_le<std::uint16_t>(&file[44], 1);
  store_le<std::uint32_t>(&file[52], 1);
  store_le<std::uint32_t>(&file[56], 0x100);
  store_le<std::uint32_t>(&file[64], 0x100000);
  store_le<std::uint32_t>(&file[68], 16);
  store_le<std::uint32_t>(&file[72], 32);
  store_le<std::uint32_t>(&file[0x100], 0x1BADB002);
  store_le<std::uint32_t>(&file[0x104], 3);
  store_le<std::uint32_t>(&file[0x108], 0U - 0x1BADB002U - 3U);
  file[0x10C] = 0xAB;
  return file;
}

DirectBootFiles files_of(const ByteVector& kernel) {
  return {
      .kernel_name = "kernel", .kernel = kernel, .initrd_name = "initrd", .initrd = {}, .cmdline = "quiet"};
}

}  // namespace

TEST_CASE("linux_small_kernel_is_placed_with_its_zero_page", "[direct_boot]") {
  const auto kernel = small_linux();
  const ByteVector initrd(5000, 0x77);
  auto files = files_of(kernel);
  files.initrd = initrd;
  TestRam ram(16 << 20);
  const auto boot = prepare_direct_boot(files, facts_with(16 << 20), ram);
  REQUIRE(boot);
  CHECK(boot->eip == 0x100000);
  CHECK(ram.bytes[0x100000] == 0x90);
  const auto* page = &ram.bytes[boot->esi];
  CHECK(load_le<std::uint32_t>(page + 0x202) == 0x53726448);
  const auto at = load_le<std::uint32_t>(page + 0x218);
  CHECK(load_le<std::uint32_t>(page + 0x21C) == 5000);
  CHECK(at % 4096 == 0);
  CHECK(ram.bytes[at] == 0x77);
  CHECK(std::string(reinterpret_cast<const char*>(&ram.bytes[load_le<std::uint32_t>(page + 0x228)])) ==
        "quiet");
  CHECK(page[0x1E8] == 7);
  CHECK(std::string(reinterpret_cast<const char*>(&ram.bytes[load_le<std::uint64_t>(page + 0x70)]), 8) ==
        "RSD PTR ");
  CHECK(load_le<std::uint64_t>(&ram.bytes[boot->gdt_base + boot->code_selector]) == 0x00CF9B000000FFFF);
  CHECK(load_le<std::uint64_t>(&ram.bytes[boot->gdt_base + boot->data_selector]) == 0x00CF93000000FFFF);
}

TEST_CASE("linux_debian_kernel_is_accepted", "[direct_boot]") {
  const auto kernel = load_file(kDebianKernel, 64 << 20);
  if (!kernel) {
    WARN("not run: install debian-installer-12-netboot-i386 for " << kDebianKernel);
    return;
  }
  TestRam ram(128 << 20);
  const auto boot = prepare_direct_boot(files_of(*kernel), facts_with(128 << 20), ram);
  REQUIRE(boot);
  const auto setup = 512U * ((*kernel)[0x1F1] + 1U);
  CHECK(std::equal(kernel->begin() + setup, kernel->end(), ram.bytes.begin() + 0x100000));
  TestRam small(4 << 20);
  const auto refused = prepare_direct_boot(files_of(*kernel), facts_with(4 << 20), small);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("kernel: needs") == 0);
}

TEST_CASE("linux_bad_files_are_refused_with_name_and_reason", "[direct_boot]") {
  TestRam ram(16 << 20);
  const auto facts = facts_with(16 << 20);
  auto truncated = small_linux();
  truncated.pop_back();
  CHECK(prepare_direct_boot(files_of(truncated), facts, ram).error().message ==
        "kernel: shorter than its header says");
  auto zimage = small_linux();
  zimage[0x211] = 0;
  CHECK(prepare_direct_boot(files_of(zimage), facts, ram).error().code == ErrorCode::kUnsupported);
  auto line = files_of(truncated);
  const auto good = small_linux();
  line.kernel = good;
  line.cmdline = std::string(2048, 'x');
  CHECK_FALSE(prepare_direct_boot(line, facts, ram));
  auto files = files_of(good);
  const ByteVector initrd(15 << 20);
  files.initrd = initrd;
  CHECK(prepare_direct_boot(files, facts, ram).error().message.find("initrd:") == 0);
  CHECK_FALSE(prepare_direct_boot(files_of({}), facts, ram));
}

TEST_CASE("multiboot_elf_is_placed_with_its_information", "[direct_boot]") {
  const auto kernel = small_multiboot();
  const ByteVector module = {1, 2, 3};
  auto files = files_of(kernel);
  files.initrd = module;
  TestRam ram(16 << 20);
  ram.bytes[0x100010] = 0xFF;  // the segment's tail must be cleared
  const auto boot = prepare_direct_boot(files, facts_with(16 << 20), ram);
  REQUIRE(boot);
  CHECK(boot->eip == 0x100004);
  CHECK(boot->eax == 0x2BADB002);
  CHECK(ram.bytes[0x10000C] == 0xAB);
  CHECK(ram.bytes[0x100010] == 0);
  const auto* info = &ram.bytes[boot->ebx];
  CHECK(load_le<std::uint32_t>(info) == 0x24D);
  CHECK(std::string(reinterpret_cast<const char*>(&ram.bytes[load_le<std::uint32_t>(info + 16)])) ==
        "kernel quiet");
  CHECK(load_le<std::uint32_t>(info + 20) == 1);
  const auto* entry = &ram.bytes[load_le<std::uint32_t>(info + 24)];
  const auto start = load_le<std::uint32_t>(entry);
  CHECK(start == 0x101000);
  CHECK(load_le<std::uint32_t>(entry + 4) == start + 3);
  CHECK(ram.bytes[start + 2] == 3);
  CHECK(std::string(reinterpret_cast<const char*>(&ram.bytes[load_le<std::uint32_t>(entry + 8)])) ==
        "initrd");
  CHECK(load_le<std::uint32_t>(info + 44) == 7 * 24);
  CHECK(load_le<std::uint32_t>(&ram.bytes[load_le<std::uint32_t>(info + 48)]) == 20);
  CHECK(std::string(reinterpret_cast<const char*>(&ram.bytes[load_le<std::uint32_t>(info + 64)])) ==
        "whistler");
}

TEST_CASE("multiboot_address_fields_place_a_flat_image", "[direct_boot]") {
  ByteBuilder file;
  file.add<std::uint32_t>(0x11223344);
  file.add<std::uint32_t>(0x1BADB002);
  file.add<std::uint32_t>(0x10000);
  file.add<std::uint32_t>(0U - 0x1BADB002U - 0x10000U);
  for (const std::uint32_t value : {0x200004U, 0x200000U, 0U, 0x200100U, 0x200024U}) {
    file.add<std::uint32_t>(value);
  }
  file.add<std::uint32_t>(0xF4F4F4F4);
  TestRam ram(16 << 20);
  const auto boot = prepare_direct_boot(files_of(file.bytes), facts_with(16 << 20), ram);
  REQUIRE(boot);
  CHECK(boot->eip == 0x200024);
  CHECK(load_le<std::uint32_t>(&ram.bytes[0x200000]) == 0x11223344);
  CHECK(ram.bytes[0x200024] == 0xF4);
}

TEST_CASE("multiboot_segments_outside_free_ram_are_refused", "[direct_boot]") {
  TestRam ram(16 << 20);
  for (const std::uint32_t address : {0U, 0x7000U, 0xA0000U, 0xF0000U, 0x0FFFFF0U, 0xFFFFFFF0U}) {
    auto kernel = small_multiboot();
    store_le<std::uint32_t>(&kernel[64], address);
    CAPTURE(address);
    CHECK_FALSE(prepare_direct_boot(files_of(kernel), facts_with(16 << 20), ram));
  }
}

TEST_CASE("direct_boot_of_changed_and_cut_images_never_crashes", "[direct_boot]") {
  std::mt19937 random(3);
  TestRam ram(4 << 20);
  for (const auto& original : {small_linux(), small_multiboot()}) {
    for (int i = 0; i < 3000; ++i) {
      auto kernel = original;
      for (unsigned change = 0; change < 1 + random() % 4; ++change) {
        kernel[random() % std::min<std::size_t>(kernel.size(), 0x280)] = static_cast<std::uint8_t>(random());
      }
      kernel.resize(random() % 3 == 0 ? random() % kernel.size() : kernel.size());
      const auto boot = prepare_direct_boot(files_of(kernel), facts_with(4 << 20), ram);
      CHECK((boot || !boot.error().message.empty()));
    }
  }
}
