// The shop's pricing service: prices, stock and reservations.
// Ordinary net/http code of the standard library; there is no tracing in it.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func answer(w http.ResponseWriter, status int, content map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(content)
}

// id is the last part of the path: /price/17 is about 17.
func id(r *http.Request) string {
	return r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
}

func price(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, map[string]any{"id": id(r), "price": 990})
}

func stock(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, map[string]any{"id": id(r), "stock": 7})
}

func slow(w http.ResponseWriter, r *http.Request) {
	time.Sleep(400 * time.Millisecond)
	answer(w, http.StatusOK, map[string]any{"id": id(r)})
}

func reserve(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	answer(w, http.StatusCreated, map[string]any{"id": id(r)})
}

func archive(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusCreated, map[string]any{"id": id(r), "bytes": size})
}

// quote asks the catalogue for the title of what it prices.
func quote(catalogue string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		got, err := http.Get(catalogue + "/title/" + id(r))
		if err != nil {
			answer(w, http.StatusBadGateway, map[string]any{"error": err.Error()})
			return
		}
		defer got.Body.Close()
		var item map[string]any
		if err := json.NewDecoder(got.Body).Decode(&item); err != nil {
			answer(w, http.StatusBadGateway, map[string]any{"error": err.Error()})
			return
		}
		answer(w, http.StatusOK, map[string]any{"id": id(r), "title": item["title"], "price": 990})
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// logged writes one JSON object for each request: when it ended, what it was, how long it took.
func logged(next http.Handler, out io.Writer) http.Handler {
	lines := log.New(out, "", 0)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &statusWriter{w, http.StatusOK}
		next.ServeHTTP(seen, r)
		end := time.Now()
		line, _ := json.Marshal(map[string]any{
			"time":     float64(end.UnixMicro()) / 1e6,
			"method":   r.Method,
			"path":     r.URL.Path,
			"status":   seen.status,
			"duration": end.Sub(start).Seconds(),
		})
		lines.Print(string(line))
	})
}

func main() {
	address := "127.0.0.1:" + setting("PRICING_PORT", "18083")
	catalogue := "http://127.0.0.1:" + setting("CATALOGUE_PORT", "18082")
	out := os.Stdout
	if path := os.Getenv("ACCESS_LOG"); path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			log.Fatalf("the access log cannot be opened: %v", err)
		}
		out = file
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/price/", price)
	mux.HandleFunc("/stock/", stock)
	mux.HandleFunc("/slow/", slow)
	mux.HandleFunc("/reserve/", reserve)
	mux.HandleFunc("/archive/", archive)
	mux.HandleFunc("/quote/", quote(catalogue))
	mux.HandleFunc("/charge/", archive)
	handler := logged(mux, out)

	if certificate := os.Getenv("TLS_CERT"); certificate != "" {
		encrypted := "127.0.0.1:" + setting("PRICING_TLS_PORT", "18086")
		fmt.Fprintf(os.Stderr, "pricing listens on %s with TLS\n", encrypted)
		go func() {
			log.Fatal(http.ListenAndServeTLS(encrypted, certificate, setting("TLS_KEY", "key.pem"), handler))
		}()
	}
	fmt.Fprintf(os.Stderr, "pricing listens on %s\n", address)
	log.Fatal(http.ListenAndServe(address, handler))
}
