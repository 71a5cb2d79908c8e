// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/policy.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace berth::machines::egress;

namespace {

std::vector<network_rule> list(std::initializer_list<const char*> texts) {
  std::vector<network_rule> rules;
  for (const char* text : texts)
    rules.push_back(parse_network_rule(text).value());
  return rules;
}

std::string reserved(const char* address) {
  const char* what = kind_of_reserved(*parse_ip(address));
  return what == nullptr ? "" : what;
}

resolved found(const char* address, bool own = false) {
  return {*parse_ip(address), own};
}

} // namespace

TEST_CASE("addresses that are not of the public network are known, in every spelling") {
  for (const char* open : {"1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.128.0.1",
                           "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"}) {
    INFO(open);
    CHECK(reserved(open).empty());
  }
  for (const char* loopback :
       {"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"}) {
    INFO(loopback);
    CHECK(reserved(loopback) == "loopback");
  }
  CHECK(reserved("169.254.169.254") == "link-local");
  CHECK(reserved("fe80::1") == "link-local");
  for (const char* closed : {"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1",
                             "0.0.0.0", "::", "100.64.0.1", "224.0.0.1", "255.255.255.255",
                             "198.18.0.1", "ff02::1", "2002:7f00:1::", "2001::1", "2001:db8::1",
                             "::7f00:1", "4000::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"}) {
    INFO(closed);
    CHECK_FALSE(reserved(closed).empty());
  }
}

TEST_CASE("a place is read in one way only") {
  CHECK(parse_destination("ApI.test:443")->text() == "api.test:443");
  CHECK(parse_destination("api.test.", 80)->text() == "api.test:80");
  CHECK(parse_destination("[2001:DB8::1]:443")->text() == "[2001:db8::1]:443");
  CHECK(parse_destination("[::ffff:10.0.0.1]:80")->address == parse_ip("10.0.0.1"));
  for (const char* bad :
       {"", ":", "api.test", ":443", "api.test:", "api.test:0", "api.test:99999", "[::1", "[::1]",
        "[::1]x:80", "::1:80", "a@b:80", "a/b:80", "a b:80", "127.1:80", "0x7f000001:80",
        "2130706433:80", "a:80:80", "[fe80::1%eth0]:80"}) {
    INFO(bad);
    CHECK_FALSE(parse_destination(bad));
  }
}

TEST_CASE("only what the list has may be asked for") {
  auto rules = list({"api.test:443", "*.packs.example:443", "10.1.2.3:8080"});
  CHECK(lists(rules, *parse_destination("api.test:443")));
  CHECK(lists(rules, *parse_destination("files.packs.example:443")));
  CHECK(lists(rules, *parse_destination("10.1.2.3:8080")));
  for (const char* other :
       {"api.test:80", "evil.org:443", "10.1.2.4:8080", "1.1.1.1:443", "[::ffff:10.1.2.4]:8080"}) {
    INFO(other);
    CHECK_FALSE(lists(rules, *parse_destination(other)));
  }
}

TEST_CASE("a name leads to public addresses, and to others only where the list has them") {
  auto rules = list({"api.test:443", "10.1.0.0/16:443", "127.0.0.1:8080"});
  CHECK(why_not_to(rules, found("151.101.0.223"), 443).empty());
  CHECK(why_not_to(rules, found("10.1.9.9"), 443).empty());
  CHECK_FALSE(why_not_to(rules, found("10.2.0.1"), 443).empty());
  CHECK_FALSE(why_not_to(rules, found("10.1.9.9"), 80).empty());
  CHECK_FALSE(why_not_to(rules, found("127.0.0.1"), 443).empty());
  CHECK_FALSE(why_not_to(rules, found("169.254.169.254"), 443).empty());
  // An address of this host, public as it may be, has this host's own services.
  CHECK_FALSE(why_not_to(rules, found("151.101.0.223", true), 443).empty());
  CHECK(why_not_to(rules, found("127.0.0.1", true), 8080).empty());
}
