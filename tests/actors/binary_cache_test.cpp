// SPDX-License-Identifier: Apache-2.0
#include "actors/binary_cache.hpp"

#include <catch2/catch.hpp>

using namespace berth;

TEST_CASE("A binary is found by its language and exact source only", "[cache]") {
  binary_cache cache{1000};
  cache.keep("rust", "fn main() {}", bytes(10, 'r'));
  REQUIRE(cache.find("rust", "fn main() {}") != nullptr);
  CHECK(*cache.find("rust", "fn main() {}") == bytes(10, 'r'));
  CHECK(cache.find("go", "fn main() {}") == nullptr);
  CHECK(cache.find("rust", "fn main() { }") == nullptr);
}

TEST_CASE("A cached binary is never replaced", "[cache]") {
  binary_cache cache{1000};
  cache.keep("go", "x", bytes(10, 'a'));
  cache.keep("go", "x", bytes(10, 'b'));
  CHECK(*cache.find("go", "x") == bytes(10, 'a'));
}

TEST_CASE("The least recently used binaries go when memory is full", "[cache]") {
  binary_cache cache{1000};
  for (char name = 'a'; name <= 'e'; ++name) {
    cache.keep("go", std::string(1, name), bytes(230, name));
    cache.find("go", "a");
    CHECK(cache.size_bytes() <= 1000);
  }
  CHECK(cache.find("go", "a") != nullptr);
  CHECK(cache.find("go", "b") == nullptr);
  CHECK(cache.find("go", "e") != nullptr);
  cache.keep("go", "huge", bytes(900, 'h'));
  CHECK(cache.find("go", "huge") == nullptr);
}

TEST_CASE("Sources that depend on more than themselves are not cached", "[cache]") {
  CHECK(binary_cache::cacheable("rust", "fn main() { println!(\"x\"); }"));
  CHECK_FALSE(binary_cache::cacheable("rust", "static X: &str = include_str!(\"/work/x\");"));
  CHECK_FALSE(binary_cache::cacheable("rust", "fn main() { env!(\"HOME\"); }"));
  CHECK_FALSE(binary_cache::cacheable("rust", "#[path = \"/work/x.rs\"] mod x;"));
  CHECK_FALSE(binary_cache::cacheable("rust", "mod helper;\nfn main() {}"));
  CHECK(binary_cache::cacheable("go", "package main\nfunc main() {}"));
  CHECK_FALSE(binary_cache::cacheable("go", "//go:embed x\nvar x string"));
  CHECK_FALSE(binary_cache::cacheable("go", "import \"C\""));
  CHECK_FALSE(binary_cache::cacheable("python", "print(1)"));
}
