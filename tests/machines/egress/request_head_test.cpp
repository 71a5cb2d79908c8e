// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/limits.hpp"
#include "machines/egress/request_head.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace berth::machines::egress;
using Catch::Matchers::Contains;

namespace {

request_head taken(const std::string& head) {
  REQUIRE(head_size(head) == head.size());
  auto read = parse_request_head(head);
  if (const auto* why = std::get_if<rejection>(&read))
    FAIL(why->reason);
  return std::get<request_head>(read);
}

int status_of(const std::string& head) {
  auto read = parse_request_head(head);
  const auto* why = std::get_if<rejection>(&read);
  return why == nullptr ? 0 : why->status;
}

const std::string end = "\r\n\r\n";

} // namespace

TEST_CASE("CONNECT names a host and a port, and what it says beside is nobody's affair") {
  auto head = taken("CONNECT ApI.test:443 HTTP/1.1\r\nHost: evil.org:443\r\nUser-Agent: pip" + end);
  CHECK(head.tunnel);
  CHECK(head.to.text() == "api.test:443");
  CHECK(head.forward.empty());
  CHECK(taken("CONNECT [2001:db8::1]:443 HTTP/1.0" + end).to.text() == "[2001:db8::1]:443");
}

TEST_CASE("a request for a URL goes on for its path, with the URL's host and for one exchange") {
  auto head = taken("GET http://Example.org/a?b=c HTTP/1.1\r\nHost: evil.org\r\nAccept: */*\r\n"
                    "Proxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n"
                    "Connection: X-Hop\r\nX-Hop: 1\r\nX-Stays: 2"
                    + end);
  CHECK(head.forward
        == "GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\nX-Stays: 2\r\n"
           "Via: 1.1 berth\r\nConnection: close\r\n\r\n");
  CHECK(head.body_bytes == 0U);
  CHECK(taken("GET http://a.org:8080 HTTP/1.1" + end)
            .forward.find("GET / HTTP/1.1\r\nHost: "
                          "a.org:8080\r\n")
        == 0);
  CHECK(taken("GET http://a.org?x HTTP/1.0" + end).forward.find("GET /?x HTTP/1.0\r\n") == 0);
  CHECK(taken("POST http://a.org/ HTTP/1.1\r\nContent-Length: 12" + end).body_bytes == 12U);
  auto chunked = taken("POST http://a.org/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
                       "Connection: transfer-encoding"
                       + end);
  CHECK_FALSE(chunked.body_bytes);
  CHECK_THAT(chunked.forward, Contains("Transfer-Encoding: chunked\r\n"));
}

TEST_CASE("what two readers could read in two ways is refused") {
  const std::string get = "GET http://a.org/ HTTP/1.1\r\n";
  for (const auto& bad : {
           get + "Content-Length: 1\r\nContent-Length: 2" + end,
           get + "Content-Length: 1\r\nTransfer-Encoding: chunked" + end,
           get + "Content-Length: +1" + end,
           get + "Content-Length: 1, 1" + end,
           get + "Content-Length: 99999999999999999999999" + end,
           get + "Transfer-Encoding: gzip, chunked" + end,
           get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked" + end,
           get + "A: b\r\n folded" + end,
           get + "A : b" + end,
           get + ": b" + end,
           get + "no colon" + end,
           get + "A: b\nB: c" + end,
           get + "A: b\rB: c" + end,
           get + std::string{"A: b\0c", 6} + end,
           "GET http://a.org/ HTTP/1.0\r\nTransfer-Encoding: chunked" + end,
           "GET http://u@a.org/ HTTP/1.1" + end,
           "GET http://a.org/#x HTTP/1.1" + end,
           "GET http:///x HTTP/1.1" + end,
           "GET http://a.org:x/ HTTP/1.1" + end,
           "GET http://127.1/ HTTP/1.1" + end,
           "GET http://a.org/\xff HTTP/1.1" + end,
           "GET / HTTP/1.1\r\nHost: a.org" + end,
           "GET ftp://a.org/ HTTP/1.1" + end,
           "OPTIONS * HTTP/1.1" + end,
           "G@T http://a.org/ HTTP/1.1" + end,
           "GET  http://a.org/ HTTP/1.1" + end,
           "CONNECT a.org HTTP/1.1" + end,
           "CONNECT http://a.org:80 HTTP/1.1" + end,
           "CONNECT" + end,
           std::string{"\r\n\r\n"},
           std::string{},
       }) {
    INFO(bad);
    CHECK(status_of(bad) == 400);
  }
  CHECK(status_of("PRI * HTTP/2.0" + end) == 505);
  std::string many = get;
  for (std::size_t i = 0; i <= headers_max; ++i)
    many += "A: b\r\n";
  CHECK(status_of(many + "\r\n") == 400);
}

TEST_CASE("a head that is not whole, or longer than may be, is none") {
  CHECK(head_size("GET http://a.org/ HTTP/1.1\r\n\r") == 0);
  CHECK(head_size("A\r\n\r\nrest") == 5);
  CHECK(head_size(std::string(head_bytes_max, 'x') + end) == 0);
}

TEST_CASE("a rejection is HTTP whatever its reason is") {
  std::string text = rejection_text({403, "a\r\nSet-Cookie: b\x01"});
  CHECK(text.find("HTTP/1.1 403 berth: a??Set-Cookie: b?\r\n") == 0);
  CHECK_THAT(text, Contains("Connection: close"));
  CHECK(rejection_text({400, std::string(5000, 'x')}).size() < 1200);
}
