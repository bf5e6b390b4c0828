#include "devices/vnc/pointer.hpp"

#include <catch2/catch.hpp>

#include "devices/vnc/test_machine.hpp"

using namespace whistler;
using Events = std::vector<std::string>;

TEST_CASE("pointer_absolute_sink_is_given_the_whole_range", "[vnc]") {
  RecordingSink sink;
  PointerTranslator pointer;
  pointer.place(0, 0, 0, 640, 480, sink);
  pointer.place(639, 479, 1, 640, 480, sink);
  pointer.place(60000, 60000, 4, 640, 480, sink);
  CHECK(sink.events == Events{"place 0 0 0 0", "place 32767 32767 0 1", "place 32767 32767 0 2"});
}

TEST_CASE("pointer_relative_sink_is_given_distances", "[vnc]") {
  RecordingSink sink;
  sink.absolute_pointer = false;
  PointerTranslator pointer;
  pointer.place(100, 100, 0, 640, 480, sink);
  pointer.place(110, 95, 2, 640, 480, sink);
  CHECK(sink.events == Events{"move 0 0 0 0", "move 10 -5 0 4"});
}

TEST_CASE("pointer_relative_reaching_an_edge_pushes_the_guest_there_once", "[vnc]") {
  RecordingSink sink;
  sink.absolute_pointer = false;
  PointerTranslator pointer;
  pointer.place(10, 470, 0, 640, 480, sink);
  pointer.place(0, 479, 0, 640, 480, sink);
  pointer.place(0, 479, 0, 640, 480, sink);
  pointer.place(5, 478, 0, 640, 480, sink);
  CHECK(sink.events == Events{"move 0 0 0 0", "move -650 489 0 0", "move 0 0 0 0", "move 5 -1 0 0"});
}

TEST_CASE("pointer_wheel_buttons_turn_once_a_press", "[vnc]") {
  RecordingSink sink;
  PointerTranslator pointer;
  for (const unsigned mask : {8U, 8U, 0U, 16U, 17U}) {
    pointer.place(0, 0, mask, 2, 2, sink);
  }
  CHECK(sink.events ==
        Events{"place 0 0 1 0", "place 0 0 0 0", "place 0 0 0 0", "place 0 0 -1 0", "place 0 0 0 1"});
}

TEST_CASE("pointer_relative_mode_distances_are_about_the_middle", "[vnc]") {
  RecordingSink sink;
  PointerTranslator pointer;
  pointer.move(0x7FFF + 7, 0x7FFF - 9, 1, sink);
  CHECK(sink.events == Events{"move 7 -9 0 1"});
}

TEST_CASE("pointer_release_all_lets_go_only_of_held_buttons", "[vnc]") {
  RecordingSink sink;
  PointerTranslator pointer;
  pointer.release_all(sink);
  CHECK(sink.events.empty());
  pointer.place(1, 1, 1, 2, 2, sink);
  pointer.release_all(sink);
  CHECK(sink.events.back() == "move 0 0 0 0");
}

TEST_CASE("pointer_screen_without_size_does_no_harm", "[vnc]") {
  RecordingSink sink;
  PointerTranslator pointer;
  pointer.place(5, 5, 0, 0, 0, sink);
  pointer.place(5, 5, 0, 1, 1, sink);
  CHECK(sink.events == Events{"place 0 0 0 0", "place 0 0 0 0"});
}
