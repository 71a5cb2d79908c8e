// SPDX-License-Identifier: Apache-2.0
#include "config/network.hpp"
#include "config/settings.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using Catch::Matchers::Contains;

namespace {

bool reaches(const char* rule, const char* name, std::uint16_t port) {
  auto read = parse_network_rule(rule);
  REQUIRE(read);
  return names_host(*read, name, port);
}

bool holds(const char* rule, const char* address, std::uint16_t port) {
  auto read = parse_network_rule(rule);
  REQUIRE(read);
  auto parsed = parse_ip(address);
  REQUIRE(parsed);
  return names_address(*read, *parsed, port);
}

std::string fault(const std::string& rule) {
  auto read = parse_network_rule(rule);
  return read ? "" : describe_error(read.error());
}

} // namespace

TEST_CASE("a place is a name and a port, and no other name or port") {
  CHECK(reaches("api.test:443", "api.test", 443));
  CHECK(reaches("ApI.test.:443", "api.test", 443));
  CHECK_FALSE(reaches("api.test:443", "api.test", 80));
  CHECK_FALSE(reaches("api.test:443", "xapi.test", 443));
  CHECK_FALSE(reaches("api.test:443", "a.api.test", 443));
  CHECK_FALSE(reaches("api.test:443", "api.test.evil.net", 443));
}

TEST_CASE("a star stands for names below one, and not for itself") {
  CHECK(reaches("*.packs.example:443", "files.packs.example", 443));
  CHECK(reaches("*.packs.example:443", "a.b.packs.example", 443));
  CHECK_FALSE(reaches("*.packs.example:443", "packs.example", 443));
  CHECK_FALSE(reaches("*.packs.example:443", "evilpacks.example", 443));
  CHECK_FALSE(reaches("*.packs.example:443", ".packs.example", 443));
  CHECK(reaches("*:443", "any.where.net", 443));
  CHECK_FALSE(reaches("*:443", "any.where.net", 80));
  CHECK_FALSE(holds("*:443", "10.1.2.3", 443));
}

TEST_CASE("addresses are compared as numbers, ranges by their bits") {
  CHECK(holds("10.1.2.3:8080", "10.1.2.3", 8080));
  CHECK(holds("10.1.2.3:8080", "::ffff:10.1.2.3", 8080));
  CHECK_FALSE(holds("10.1.2.3:8080", "10.1.2.4", 8080));
  CHECK_FALSE(holds("10.1.2.3:8080", "10.1.2.3", 80));
  CHECK(holds("10.1.0.0/16:80", "10.1.255.255", 80));
  CHECK_FALSE(holds("10.1.0.0/16:80", "10.2.0.0", 80));
  CHECK(holds("10.0.0.0/9:80", "10.127.0.1", 80));
  CHECK_FALSE(holds("10.0.0.0/9:80", "10.128.0.1", 80));
  CHECK(holds("[fd00::/8]:443", "fd12::1", 443));
  CHECK_FALSE(holds("[fd00::/8]:443", "fe80::1", 443));
  CHECK(holds("[::1]:80", "0:0::1", 80));
  CHECK_FALSE(holds("0.0.0.0/0:80", "::1", 80));
  CHECK_FALSE(reaches("10.1.2.3:80", "host", 80));
  CHECK(parse_ip("10.1.2.3")->text() == "10.1.2.3");
  CHECK(parse_ip("2001:DB8:0::1")->text() == "2001:db8::1");
}

TEST_CASE("what is no place is refused, and the reason says what is wrong") {
  CHECK_THAT(fault("api.test"), Contains("port"));
  CHECK_THAT(fault("api.test:0"), Contains("port"));
  CHECK_THAT(fault("api.test:65536"), Contains("port"));
  CHECK_THAT(fault("api.test:44x"), Contains("port"));
  CHECK_THAT(fault("https://api.test:443"), Contains("scheme"));
  CHECK_THAT(fault("fd00::1:443"), Contains("brackets"));
  CHECK_THAT(fault("10.1.2.3/16:80"), Contains("beyond its length"));
  CHECK_THAT(fault("10.1.0.0/33:80"), Contains("0 to 32"));
  CHECK_THAT(fault("api.test/simple:443"), Contains("range"));
  for (const char* bad : {":443", "*.:443", "*api.test:443", "a..b:443", "-a.org:443", "a b:443",
                          "127.1:80", "2130706433:80", "0x7f.1:80", "[api.test]:443", "[]:80",
                          "user@api.test:443", "a.*.org:443", "p\xc3\xbcpi.org:443"}) {
    INFO(bad);
    CHECK_FALSE(fault(bad).empty());
  }
  CHECK_FALSE(fault(std::string(400, 'a') + ":443").empty());
}

TEST_CASE("a machine type with a network is checked, and the error names the member") {
  auto why = [](const std::string& type) {
    auto values = parse_settings("{\"vm_types\": {\"pip\": " + type + "}}", "berth.json");
    return values ? std::string{} : to_refusal(values.error()).detail;
  };
  CHECK(
      why(R"({"kind": "namespace", "network": ["api.test:443", "*.packs.example:443"]})").empty());
  CHECK(why(R"({"kind": "qemu", "network": ["10.1.2.3:8080"]})").empty());
  CHECK_THAT(why(R"({"kind": "namespace", "network": ["api.test:443", "api.test"]})"),
             Contains("vm_types.pip.network[1]"));
  CHECK_THAT(why(R"({"network": ["api.test:443"]})"),
             Contains("vm_types.pip.network: needs a kind"));
  CHECK_THAT(why(R"({"kind": "instant", "network": ["api.test:443"]})"), Contains("needs a kind"));
  CHECK_THAT(why(R"({"kind": "namespace", "network": "api.test:443"})"), Contains("list"));
  CHECK_FALSE(parse_settings(
      R"({"vm_types": {"a/b": {"kind": "qemu", "network": ["api.test:443"]}}})", "berth.json"));
}
