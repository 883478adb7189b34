// What one would write instead of stockgate: a Fastify server that checks Shopify's signature and keeps each delivery once.
//
// STORE=redis: one Lua script a delivery, SET NX on its id and XADD to a stream: one round trip, and nothing is lost between
// the two. Redis answers after its append-only file is synced (appendfsync always).
// STORE=postgres: one prepared INSERT .. ON CONFLICT DO NOTHING a delivery, through a pool of 32; each is a commit of its own.
//
// It keeps raw deliveries and recognises repeats. It has no levels, no history, no totals, no metrics.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import cluster from 'node:cluster';
import Fastify from 'fastify';

const { PORT, CERTIFICATE, KEY, SECRET_FILE, STORE, REDIS_SOCKET, PG_SOCKET, WORKERS = '1' } = process.env;
// Deliveries are retried for 48 hours at most; ids need not be remembered for longer.
const REMEMBER_SECONDS = 48 * 3600;

async function redisStore() {
  const { default: Redis } = await import('ioredis');
  const redis = new Redis({ path: REDIS_SOCKET });
  redis.defineCommand('keep', {
    numberOfKeys: 2,
    lua: `if redis.call('SET', KEYS[1], '', 'NX', 'EX', ARGV[1]) then
            redis.call('XADD', KEYS[2], '*', 'id', ARGV[2], 'topic', ARGV[3], 'body', ARGV[4])
          end
          return 1`,
  });
  await redis.ping();
  return (id, topic, body) => redis.keep(`seen:${id}`, 'deliveries', REMEMBER_SECONDS, id, topic, body);
}

async function postgresStore() {
  const { default: pg } = await import('pg');
  const pool = new pg.Pool({ host: PG_SOCKET, user: 'bench', database: 'postgres', max: 32, idleTimeoutMillis: 0 });
  await pool.query(`CREATE TABLE IF NOT EXISTS deliveries (
    id uuid PRIMARY KEY, topic text NOT NULL, received_at timestamptz NOT NULL DEFAULT now(), body bytea NOT NULL)`);
  return (id, topic, body) =>
    pool.query({
      name: 'keep',
      text: 'INSERT INTO deliveries (id, topic, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING',
      values: [id, topic, body],
    });
}

async function serve() {
  const keep = await (STORE === 'redis' ? redisStore() : postgresStore());
  const secret = readFileSync(SECRET_FILE, 'utf8').trim();
  const server = Fastify({
    https: { key: readFileSync(KEY), cert: readFileSync(CERTIFICATE) },
    logger: false,
    keepAliveTimeout: 75_000,
  });
  // the signature is over the bytes as they came
  server.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  server.post('/in/shop', async (request, reply) => {
    const given = Buffer.from(request.headers['x-shopify-hmac-sha256'] ?? '', 'base64');
    const expected = createHmac('sha256', secret).update(request.body).digest();
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      return reply.code(401).send();
    }
    await keep(request.headers['x-shopify-webhook-id'], request.headers['x-shopify-topic'], request.body);
    return reply.code(200).send();
  });
  server.get('/ready', async (_request, reply) => reply.code(204).send());
  await server.listen({ host: '127.0.0.1', port: Number(PORT) });
}

if (Number(WORKERS) > 1 && cluster.isPrimary) {
  for (let i = 0; i < Number(WORKERS); i += 1) cluster.fork();
} else {
  await serve();
}
