package sdgrpc

import "time"

// SetKeepAlive changes how soon a vanished server is noticed, for a test, and returns how to change it back.
func SetKeepAlive(interval, timeout time.Duration) (restore func()) {
	before := keepAlive
	keepAlive.Time, keepAlive.Timeout = interval, timeout
	return func() { keepAlive = before }
}
